"""Tuning one task: methods, the training loop, and what trainings share."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "compute": ["Compute", "find_compute"],
        "features": ["FeatureStore", "OnCached"],
        "fit": ["choose_method", "find_subset", "make_checkpoint", "pretrain"],
        "loop": ["FitOptions", "OnEpoch", "evaluate"],
        "methods": [
            "BASELINES",
            "Method",
            "TrainingPhase",
            "auto_rgn",
            "contiguous_groups",
            "full_finetuning",
            "gradual_unfreezing",
            "linear_probe",
            "lora",
            "lp_ft",
            "norm_only",
            "subtuning",
            "surgical",
        ],
        "trainer": ["Prepared", "Stage", "Trained", "Trainer"],
    },
)
