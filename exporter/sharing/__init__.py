"""What task models share: segments, their costs, and the plan. Pure functions of the digest chains."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "choose": ["CutOptions", "CutRule"],
        "costs": ["CutCosts"],
        "plan": ["SharingPlan", "make_sharing_plan"],
    },
)
