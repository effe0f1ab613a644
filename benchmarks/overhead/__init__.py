"""What the server adds to its engine."""
