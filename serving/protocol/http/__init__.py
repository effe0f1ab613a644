"""The v2 protocol over HTTP, and images in, labels out."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "server": ["HttpFrontEnd"],
        "connection.limits": ["HttpLimits"],
    },
)
