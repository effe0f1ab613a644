"""A network that is being split: its graph, its tensors' shapes and addresses, and its blocks."""

from exporter.graph.network.network import Network, make_chain

__all__ = ["Network", "make_chain"]
