"""The same work on what one would pick instead: hand-written FastAPI, LitServe, BentoML, MLServer, Ray Serve, Triton (docs/peers.md)."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
