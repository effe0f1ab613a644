"""SubTuning of a backbone: its blocks, fitting one subset of them to a task, and the files that come out."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "data.labelled": ["TaskData", "folder_task"],
        "data.sources": ["DataOptions", "load_data"],
        "errors": ["BadOptions", "CannotWrite", "NoUserCacheFolder", "TuningError", "UnknownBlock", "UnsupportedNetwork"],
        "network.backbone": ["Backbone", "load_backbone", "save_backbone"],
        "network.checkpoint": ["TaskCheckpoint", "build_network", "load_task", "save_task"],
        "training.fit": ["evaluate", "fit", "pretrain"],
        "training.loop": ["FitOptions"],
    },
)
