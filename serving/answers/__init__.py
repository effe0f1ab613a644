"""From the values of a plan to an answer."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "answer": ["About", "TaskAnswer"],
        "classes": ["as_classes", "assumed_scores"],
        "readers": ["AnyAnswer", "read_answers"],
    },
)
