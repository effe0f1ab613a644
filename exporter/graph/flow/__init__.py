"""Control flow (If, Loop, Scan): a node with its bodies as one operator, and what bodies take from outside as its inputs."""

__all__: list[str] = []
