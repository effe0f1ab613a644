"""A dense family and a text family: what sharing saves of compute, time and memory."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
