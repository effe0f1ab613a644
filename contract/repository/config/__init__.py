"""Segments and tasks as Triton model configurations, in both directions, through Triton's own protobuf.

Everything that serving needs beyond what Triton knows is in `parameters`, which Triton passes by: there is no second manifest.
"""

from contract.repository.config.all_tasks import (
    COPY,
    all_tasks_config,
    copy_configs,
    parse_cut_rule,
    parse_cuts_left_out,
    parse_digest_version,
    parse_not_shared,
    parse_origin,
)
from contract.repository.config.ensembles import ALL_TASKS, LABELS_FILE
from contract.repository.config.parameters import KIND
from contract.repository.config.segments import parse_segment, segment_config
from contract.repository.config.tasks import TOKENIZER_FILE, kept_config, parse_canary, parse_kept, parse_task, task_config
from contract.repository.config.tensors import ModelConfig, data_type, tensor_specs
from contract.repository.config.texts import kind_of, parse_text, to_text

__all__ = [
    "ALL_TASKS",
    "COPY",
    "KIND",
    "LABELS_FILE",
    "TOKENIZER_FILE",
    "ModelConfig",
    "all_tasks_config",
    "copy_configs",
    "data_type",
    "kept_config",
    "kind_of",
    "parse_canary",
    "parse_cut_rule",
    "parse_cuts_left_out",
    "parse_digest_version",
    "parse_kept",
    "parse_not_shared",
    "parse_origin",
    "parse_segment",
    "parse_task",
    "parse_text",
    "segment_config",
    "task_config",
    "tensor_specs",
    "to_text",
]
