"""Charts of ledgers: what a search or a comparison of methods found, from its file alone. None of it needs torch."""

__all__: list[str] = []
