"""Rewrites of graphs, one pass per file; `canonical` puts them in order."""
