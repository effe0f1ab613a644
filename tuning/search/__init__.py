"""The search for the subset of blocks to tune: scores by cross-validation, a ledger of them, and greedy selection over it."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "compare": ["METHODS", "Comparison"],
        "greedy": ["Direction", "GreedyStep", "Selection", "StopRule", "select"],
        "ledger": ["BlockFacts", "LedgerContents", "Trial", "read_ledger"],
        "replay": [
            "MissingCosts",
            "MissingScores",
            "Noted",
            "make_preference",
            "noted_selections",
            "search_scores",
            "searched_blocks",
        ],
        "score": ["CostOf", "Objective", "Score", "Subset", "SubsetCost", "pareto_front"],
        "search": ["Search", "SearchOptions", "open_search"],
        "workers": ["find_workers"],
    },
)
