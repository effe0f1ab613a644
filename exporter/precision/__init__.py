"""Networks in int8: what is quantised, what that costs each task, and what becomes of those that it costs too much."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "examples": ["Examples", "PrecisionOptions"],
        "judge": ["Verdict"],
        "report": ["PrecisionReport"],
    },
)
