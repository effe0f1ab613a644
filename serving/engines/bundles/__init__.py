"""Small segments that are asked for together, run as one session: which, when it is opened, and what becomes of it."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "bundling": ["Bundling"],
    },
)
