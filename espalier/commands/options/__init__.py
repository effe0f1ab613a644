"""Options that several commands have in common, and what becomes of them."""

__all__: list[str] = []
