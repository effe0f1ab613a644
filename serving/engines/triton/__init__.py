"""The Triton engine: plans are answered by Tritons elsewhere, over the v2 protocol's gRPC (docs/guides/triton-engine.md)."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "addresses": ["parse_urls"],
        "engine": ["TritonEngine", "TritonEngineOptions"],
        "shared_memory_channel": ["SHARED_FROM_BYTES"],
    },
)
