"""Very many tasks on one backbone, more than fit into memory."""

__all__: list[str] = []
