"""How a repository changes in one step, whatever happens meanwhile. For `contract.repository` only."""

__all__: list[str] = []
