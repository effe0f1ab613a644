"""The ensemble of all tasks, with what a repository says of itself, and the models that only copy a tensor for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from contract.repository.anchor import anchored
from contract.repository.config.ensembles import ALL_TASKS, ensemble_config
from contract.repository.config.parameters import (
    DIGEST_VERSION_KEY,
    KIND,
    digest_version_of,
    incomplete,
    parameters_of,
    set_parameters,
    version_text,
)
from contract.repository.config.tensors import ModelConfig, add_tensors
from contract.repository.model import DEFAULT_CUT_RULE, Step, Task
from contract.repository.not_shared import NotShared, from_json, to_json
from contract.repository.origin import Origin, origin_from_json, origin_to_json
from contract.repository.unite import Copy, ensemble_of, united_inputs

COPY = "copy"
_CUT_RULE = "cut_rule"
_NOT_SHARED = "not_shared"
_ORIGIN = "origin"


def all_tasks_config(
    tasks: Iterable[Task],
    cuts_left_out: Sequence[str] = (),
    cut_rule: str = DEFAULT_CUT_RULE,
    *,
    digest_version: int = 1,
    copied: bool = True,
    not_shared: Sequence[NotShared] = (),
    origin: Origin | None = None,
) -> Any:
    """Return the ensemble of all `tasks`: the outputs of each; a client picks tasks by the outputs that it requests.

    An input that not all tasks take is optional: a request brings what its outputs need. A step that several tasks have in common
    appears once; where tasks have equal outputs, or no output needs all inputs, there are also steps that copy tensors, whose models
    `copy_configs` describes. copied: False leaves that out, for engines that have no such models. digest_version, not_shared, origin:
    as of `Repository`.
    """
    tasks = _in_order(tasks)
    steps = list(dict.fromkeys(step for task in tasks for step in task.steps))
    if copied:
        steps, _ = _for_triton(tasks)
    parameters = {
        KIND: ALL_TASKS,
        "cuts_left_out": json.dumps(list(cuts_left_out)) if cuts_left_out else "",
        _CUT_RULE: cut_rule if cut_rule != DEFAULT_CUT_RULE else "",
        DIGEST_VERSION_KEY: version_text(digest_version),
        _NOT_SHARED: to_json(not_shared),
        _ORIGIN: origin_to_json(origin or Origin()),
    }
    return ensemble_config(ALL_TASKS, tasks, steps, parameters)


def copy_configs(tasks: Iterable[Task]) -> dict[Copy, Any]:
    """Return the configurations of the models that only copy a tensor, as `all_tasks_config` needs them; most often none.

    One per kind of tensor, under one of the copies that it makes.
    """
    tasks = _in_order(tasks)
    kinds = {copy.model: copy for copy in _for_triton(tasks)[1]}
    return {copy: _copy_config(copy, min(task.max_batch_rows for task in tasks)) for copy in kinds.values()}


def _for_triton(tasks: Sequence[Task]) -> tuple[list[Step], list[Copy]]:
    """Return the steps of the ensemble of all `tasks`, and the models among them that only copy."""
    steps, copies = ensemble_of(tasks)
    steps += [Step(copy.model, (copy.source,), (copy.spec.name,)) for copy in copies]
    steps, more = anchored(steps, united_inputs(tasks) or (), [spec.name for task in tasks for spec in task.outputs])
    return steps, [*copies, *more]


def _copy_config(copy: Copy, max_batch_rows: int) -> Any:
    config = ModelConfig(name=copy.model, backend="onnxruntime", max_batch_size=max_batch_rows)
    config.default_model_filename = "model.onnx"
    add_tensors(config.input, copy.inputs)
    add_tensors(config.output, copy.outputs)
    config.instance_group.add(count=1)
    config.dynamic_batching.SetInParent()
    set_parameters(config, {KIND: COPY})
    return config


def _in_order(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: task.name)


def parse_cuts_left_out(config: Any) -> tuple[str, ...]:
    """Return what `all_tasks_config` was told of cuts that were left out."""
    try:
        return tuple(map(str, json.loads(parameters_of(config).get("cuts_left_out", "[]"))))
    except ValueError as error:
        raise incomplete(config.name, "model", error) from error


def parse_cut_rule(config: Any) -> str:
    """Return by what rule `all_tasks_config` was told that the cuts were chosen."""
    return parameters_of(config).get(_CUT_RULE, DEFAULT_CUT_RULE)


def parse_digest_version(config: Any) -> int:
    """Return of which version `all_tasks_config` was told that the digests are. Raises RepositoryError."""
    try:
        return digest_version_of(parameters_of(config))
    except ValueError as error:
        raise incomplete(config.name, "model", error) from error


def parse_not_shared(config: Any) -> tuple[NotShared, ...]:
    """Return what `all_tasks_config` was told that is not shared. Raises RepositoryError."""
    try:
        return from_json(parameters_of(config).get(_NOT_SHARED, ""))
    except ValueError as error:
        raise incomplete(config.name, "model", error) from error


def parse_origin(config: Any) -> Origin:
    """Return what `all_tasks_config` was told that the export was told. Raises RepositoryError."""
    try:
        return origin_from_json(parameters_of(config).get(_ORIGIN, ""))
    except ValueError as error:
        raise incomplete(config.name, "model", error) from error
