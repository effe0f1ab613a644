"""The v2 protocol over gRPC."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "server": ["GrpcFrontEnd"],
    },
)
