"""The networks and repositories that benchmarks measure."""
