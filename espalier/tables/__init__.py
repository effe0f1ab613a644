"""Tables and trees for the terminal."""

__all__: list[str] = []
