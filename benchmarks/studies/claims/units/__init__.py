"""What each kind of unit does."""

__all__: list[str] = []
