"""From the bytes of a JPEG file to the answer."""

__all__: list[str] = []
