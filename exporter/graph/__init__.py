"""One network as a graph: its canonical form, its cut points, its blocks and their digests."""
