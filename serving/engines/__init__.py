"""Engines run execution plans: the embedded one in this process, the in-memory one on plain functions, Triton's on other servers."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "base": ["Answer", "BatchStatistics", "Call", "Engine", "RequestSeconds", "SegmentRun", "SegmentStatistics"],
        "embedded": ["EmbeddedEngine", "EngineOptions"],
        "in_memory": ["InMemoryEngine"],
    },
)
