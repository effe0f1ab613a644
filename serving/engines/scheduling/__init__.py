"""Which steps run next, together with which others, in how many threads. No model files, no runtime."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "plan_execution": ["PlanExecution"],
    },
)
