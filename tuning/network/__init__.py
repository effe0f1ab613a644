"""The pretrained network that tasks share: its parts, its weights, and the files that hold what a task changed."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "adapters": ["read_adapter"],
        "backbone": ["Backbone", "BackboneSpec", "block_macs", "load_backbone", "save_backbone"],
        "blocks": ["find_blocks", "find_head", "is_under", "replace_head"],
        "checkpoint": [
            "TaskCheckpoint",
            "build_network",
            "check_backbone",
            "load_task",
            "read_kind",
            "read_spec",
            "save_task",
            "tuned_names",
        ],
        "files": ["cache_folder"],
        "frozen_prefix": ["SplitNetwork", "split_network"],
        "libraries": ["create_network", "find_preprocessing", "split_name", "versions", "with_input_size"],
        "low_rank": ["adaptable_layers"],
        "normalise": ["Normalise"],
        "state_dicts": ["StateDict", "read_state_dict"],
        "weights": ["check_tensors"],
    },
)
