"""Networks in other precisions than fp32, and what that costs in accuracy."""

__all__: list[str] = []
