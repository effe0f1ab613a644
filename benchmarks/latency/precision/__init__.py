"""Networks in other precisions than fp32, and what that costs in accuracy."""
