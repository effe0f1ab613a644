"""How long an export takes, phase by phase."""

__all__: list[str] = []
