"""Knowledge from large networks (teachers) into a small one (the student), by their features."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "compare": ["OnRun", "Spread", "TransferRun", "mean_weights", "run_methods", "spread"],
        "features": ["TeacherFeatures", "compute_features"],
        "training": ["TransferOptions"],
        "transfer": ["METHODS", "Method", "Transferred"],
        "weights": ["TeacherWeights"],
    },
)
