"""Makes every block compute the batch size from its own input."""

__all__: list[str] = []
