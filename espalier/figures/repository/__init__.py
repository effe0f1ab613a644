"""A picture of a repository: the tree of trunk and branches in which width is cost."""

__all__: list[str] = []
