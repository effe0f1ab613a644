"""Pruning of tuned tasks: fewer channels in their tuned blocks."""
