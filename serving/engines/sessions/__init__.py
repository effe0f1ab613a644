"""Open sessions by segment: opened on first use, closed when memory is needed, their files kept."""
