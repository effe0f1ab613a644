"""HTTP/1.1 on connections, within limits of sizes, counts and times."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "limits": ["HttpLimits"],
        "server": ["HttpServer"],
    },
)
