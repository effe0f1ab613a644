"""What the server adds to its engine."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
