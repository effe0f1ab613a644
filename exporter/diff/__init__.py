"""What differs between two networks: which blocks, and by how much."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "diff": ["BlockDiff", "NetworkDiff", "diff_models"],
        "weight_diff": ["WeightDiff"],
    },
)
