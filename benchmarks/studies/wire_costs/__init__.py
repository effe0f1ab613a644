"""What a request costs on each wire: the server, and servers that do nothing on the same libraries."""

__all__: list[str] = []
