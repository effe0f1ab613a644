"""A model repository of one's own: one request for some of its tasks against the same tasks as separate networks."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["RepositoryBenchmark"],
        "question": ["Question"],
    },
)
