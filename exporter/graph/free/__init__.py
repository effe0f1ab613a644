"""Free sizes: axes beside the batch that a client chooses, what depends on them, and what their names are."""

__all__: list[str] = []
