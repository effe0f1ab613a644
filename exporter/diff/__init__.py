"""What differs between two networks: which blocks, and by how much."""
