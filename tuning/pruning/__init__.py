"""Pruning of tuned tasks: fewer channels in their tuned blocks."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "prune": ["Measured", "Pruning", "prune_task"],
    },
)
