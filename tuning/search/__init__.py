"""The search for the subset of blocks to tune: scores by cross-validation, a ledger of them, and greedy selection over it."""
