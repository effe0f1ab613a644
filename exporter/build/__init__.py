"""From task models and a plan to what a repository says, checked by running it."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "weight_store": ["WeightStore"],
    },
)
