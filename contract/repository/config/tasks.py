"""Tasks, and versions that are kept beside the current one, as ensembles, in both directions."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from contract.kinds.kind import Scores
from contract.kinds.registry import kind_from_json, kind_to_json
from contract.preprocessing import Preprocessing
from contract.repository.config.ensembles import ensemble_config, steps_of
from contract.repository.config.parameters import KIND, SIZES, incomplete, parameters_of, set_parameters
from contract.repository.config.tensors import input_specs, tensor_specs, with_axes
from contract.repository.free_sizes import ranges_from_json, ranges_to_json, sizes_from_json, sizes_to_json
from contract.repository.model import Canary, Task
from contract.repository.record import ParityRecord
from contract.tensor_names import names_from_json, names_to_json
from contract.text import TextInput

TOKENIZER_FILE = "tokenizer.json"
_PARITY = "parity_sample"
_VALUES = "value_ranges"
_TEXT = "text_input"
_NAMES = "tensor_names"
_ANSWERS = "answers"


def task_config(task: Task) -> Any:
    """Return `task` as the ModelConfig of an ensemble with one output."""
    parameters = {KIND: "task", "provenance": json.dumps(dict(task.provenance), sort_keys=True), "scores": task.scores}
    if task.preprocessing is not None:
        parameters["preprocessing"] = task.preprocessing.to_json()
    if task.last_version:
        parameters["last_version"] = str(task.last_version)
    if task.text is not None:
        parameters[_TEXT] = task.text.to_json()
    if task.parity is not None:
        parameters[_PARITY] = task.parity.to_json()
    if task.kind is not None:
        parameters[_ANSWERS] = kind_to_json(task.kind)
    parameters |= {SIZES: sizes_to_json(task.sizes), _VALUES: ranges_to_json(task.values), _NAMES: names_to_json(task.names)}
    return ensemble_config(task.name, [task], task.steps, parameters)


def kept_config(kept: Task | Canary) -> Any:
    """Return the ensemble of a version that is kept beside the current one: with its number, and a canary with its share."""
    task = kept.task if isinstance(kept, Canary) else kept
    config = task_config(task)
    set_parameters(config, {"version": task.version, "share": repr(kept.share) if isinstance(kept, Canary) else ""})
    return config


def parse_task(config: Any, labels: tuple[str, ...], version: str) -> Task:
    """Return the task that `task_config` wrote. Raises RepositoryError."""
    parameters = parameters_of(config)
    try:
        described = parameters.get("preprocessing")
        return Task(
            name=config.name,
            steps=steps_of(config),
            inputs=with_axes(input_specs(config.input), parameters),
            outputs=with_axes(tensor_specs(config.output), parameters),
            max_batch_rows=config.max_batch_size,
            labels=labels,
            preprocessing=None if described is None else Preprocessing.from_json(described),
            provenance=json.loads(parameters["provenance"]),
            version=version,
            last_version=int(parameters.get("last_version", "0")),
            parity=ParityRecord.from_json(parameters[_PARITY]) if _PARITY in parameters else None,
            scores=_scores(parameters.get("scores", "")),
            sizes=sizes_from_json(parameters.get(SIZES, "")),
            values=ranges_from_json(parameters.get(_VALUES, "")),
            text=TextInput.from_json(parameters[_TEXT]) if _TEXT in parameters else None,
            names=names_from_json(parameters.get(_NAMES, "")),
            kind=kind_from_json(parameters[_ANSWERS]) if _ANSWERS in parameters else None,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise incomplete(config.name, "task", error) from error


def parse_kept(config: Any, labels: tuple[str, ...]) -> Task:
    """Return the version that `kept_config` wrote. Raises RepositoryError."""
    try:
        version = int(parameters_of(config)["version"])
    except (KeyError, ValueError) as error:
        raise incomplete(config.name, "task", error) from error
    return parse_task(config, labels, str(version))


def parse_canary(config: Any, labels: tuple[str, ...]) -> Canary:
    """Return the canary that `kept_config` wrote. Raises RepositoryError."""
    try:
        return Canary(parse_kept(config, labels), float(parameters_of(config)["share"]))
    except (KeyError, ValueError) as error:
        raise incomplete(config.name, "task", error) from error


def _scores(word: str) -> Scores:
    if word not in get_args(Scores):
        raise ValueError(f"scores are {word!r}")
    return cast(Scores, word)
