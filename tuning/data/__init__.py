"""Labelled images: where they come from, and what is done to them before training."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "digits": ["digit_task"],
        "folds": ["Fold", "make_folds"],
        "labelled": ["Draw", "Split", "TaskData", "folder_task"],
        "sources": ["DataOptions", "load_data"],
    },
)
