"""One request for many tasks: the shared trunk against what one would run without it."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
        "compare": ["LatencyComparison", "compare_latency"],
    },
)
