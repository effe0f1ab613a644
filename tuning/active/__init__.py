"""Active learning: which images to label next."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "margin": ["STRATEGIES", "ActiveRound", "Comparison", "OnRound", "Strategy", "check_sizes", "compare", "summarise"],
        "unlabelled": ["OnImage", "Ranking", "UnlabelledImage", "rank_pool", "write_candidates"],
    },
)
