"""What deploys do to the requests of other tasks."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
