"""The same work on what one would pick instead: FastAPI by hand, LitServe, BentoML, MLServer, Ray Serve, Triton.

docs/measurements/peers.md has the results.
"""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
