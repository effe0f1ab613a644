"""What a benchmark is: its options, its result, and the record that is kept of it."""
