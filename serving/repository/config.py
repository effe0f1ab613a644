"""Segments and tasks as Triton model configurations, in both directions, through Triton's own protobuf.

Everything that serving needs beyond what Triton knows is in `parameters`, which Triton passes by: there is no second manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.errors import RepositoryError
from serving.preprocessing import Preprocessing
from serving.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Segment, Step, Task, TensorSpec

ALL_TASKS = "all_tasks"
LABELS_FILE = "labels.txt"
_KIND = "espalier_kind"

# A protobuf class without type information: `Any` at this one boundary.
ModelConfig: Any = model_config_pb2.ModelConfig


def segment_config(segment: Segment) -> Any:
    """Return `segment` as a ModelConfig for Triton's onnxruntime backend, with dynamic batching and no artificial delay."""
    config = ModelConfig(name=segment.name, backend="onnxruntime", max_batch_size=segment.max_batch_rows)
    config.default_model_filename = "model.onnx"
    _add_tensor(config.input.add(), segment.input)
    _add_tensor(config.output.add(), segment.output)
    config.dynamic_batching.SetInParent()
    _set_parameters(
        config,
        {
            _KIND: "segment",
            "blocks": f"{segment.blocks[0]}-{segment.blocks[1]}",
            "digest": segment.digest,
            "macs": str(segment.macs),
            "parameters": str(segment.parameters),
            "weight_bytes": str(segment.weight_bytes),
            "activation_bytes": str(segment.activation_bytes),
            "modules": json.dumps(segment.modules),
            "uncounted": json.dumps(segment.uncounted),
        },
    )
    return config


def task_config(task: Task) -> Any:
    """Return `task` as the ModelConfig of an ensemble with one output."""
    parameters = {_KIND: "task", "provenance": json.dumps(dict(task.provenance), sort_keys=True)}
    if task.preprocessing is not None:
        parameters["preprocessing"] = task.preprocessing.to_json()
    return _ensemble(task.name, [task], task.steps, parameters)


def all_tasks_config(tasks: Iterable[Task]) -> Any:
    """Return the ensemble of all `tasks`: one output per task; a client picks tasks by the outputs that it requests.

    All tasks must take the same input (the exporter sees to that). A step that several tasks have in common appears once.
    """
    tasks = sorted(tasks, key=lambda task: task.name)
    steps = dict.fromkeys(step for task in tasks for step in task.steps)
    return _ensemble(ALL_TASKS, tasks, steps, {_KIND: ALL_TASKS})


def to_text(config: Any) -> str:
    """Return `config` as the text of a config.pbtxt."""
    return cast(str, text_format.MessageToString(config))


def parse_text(text: str, where: str) -> Any:
    """Return the ModelConfig that `text` describes. Raises RepositoryError naming `where`."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{where} is not a Triton model configuration: {error}.") from error


def kind_of(config: Any) -> str:
    """Return "segment", "task", "all_tasks", or "" for a model that espalier did not write."""
    return _parameters(config).get(_KIND, "")


def parse_segment(config: Any, version: str) -> Segment:
    """Return the segment that `segment_config` wrote. Raises RepositoryError."""
    parameters = _parameters(config)
    try:
        first, last = parameters["blocks"].split("-")
        return Segment(
            name=config.name,
            input=_tensor(config.input[0]),
            output=_tensor(config.output[0]),
            blocks=(int(first), int(last)),
            digest=parameters["digest"],
            max_batch_rows=config.max_batch_size,
            macs=int(parameters["macs"]),
            parameters=int(parameters["parameters"]),
            weight_bytes=int(parameters["weight_bytes"]),
            activation_bytes=int(parameters["activation_bytes"]),
            modules=tuple(json.loads(parameters["modules"])),
            uncounted=tuple(json.loads(parameters["uncounted"])),
            version=version,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise _incomplete(config.name, "segment", error) from error


def parse_task(config: Any, labels: tuple[str, ...], version: str) -> Task:
    """Return the task that `task_config` wrote. Raises RepositoryError."""
    parameters = _parameters(config)
    try:
        described = parameters.get("preprocessing")
        return Task(
            name=config.name,
            steps=tuple(_step(step) for step in config.ensemble_scheduling.step),
            input=_tensor(config.input[0]),
            output=_tensor(config.output[0]),
            max_batch_rows=config.max_batch_size,
            labels=labels,
            preprocessing=None if described is None else Preprocessing.from_json(described),
            provenance=json.loads(parameters["provenance"]),
            version=version,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise _incomplete(config.name, "task", error) from error


def _incomplete(name: str, kind: str, error: Exception) -> RepositoryError:
    return RepositoryError(f"The configuration of {kind} {name!r} is incomplete or damaged ({error}); export it again.")


def _ensemble(name: str, tasks: Iterable[Task], steps: Iterable[Step], parameters: Mapping[str, str]) -> Any:
    tasks = list(tasks)
    config = ModelConfig(name=name, platform="ensemble", max_batch_size=min(task.max_batch_rows for task in tasks))
    _add_tensor(config.input.add(), tasks[0].input)
    for task in tasks:
        output = config.output.add()
        _add_tensor(output, task.output)
        if task.labels:
            # Triton looks for the file in the ensemble's own folder.
            output.label_filename = LABELS_FILE if name != ALL_TASKS else f"{task.name}.{LABELS_FILE}"
    for step in steps:
        message = config.ensemble_scheduling.step.add(model_name=step.segment, model_version=-1)
        message.input_map[SEGMENT_INPUT] = step.input
        message.output_map[SEGMENT_OUTPUT] = step.output
    _set_parameters(config, parameters)
    return config


def _add_tensor(message: Any, spec: TensorSpec) -> None:
    message.name = spec.name
    # The v2 protocol and the configuration differ in one word: BYTES is TYPE_STRING.
    message.data_type = model_config_pb2.DataType.Value(f"TYPE_{'STRING' if spec.dtype == 'BYTES' else spec.dtype}")
    message.dims.extend(spec.shape)


def _tensor(message: Any) -> TensorSpec:
    dtype = model_config_pb2.DataType.Name(message.data_type).removeprefix("TYPE_")
    return TensorSpec(message.name, "BYTES" if dtype == "STRING" else dtype, tuple(message.dims))


def _step(message: Any) -> Step:
    return Step(message.model_name, message.input_map[SEGMENT_INPUT], message.output_map[SEGMENT_OUTPUT])


def _set_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    for key, value in parameters.items():
        config.parameters[key].string_value = value


def _parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}
