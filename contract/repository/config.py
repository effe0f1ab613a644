"""Segments and tasks as Triton model configurations, in both directions, through Triton's own protobuf.

Everything that serving needs beyond what Triton knows is in `parameters`, which Triton passes by: there is no second manifest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.errors import RepositoryError
from contract.preprocessing import Layout, Preprocessing
from contract.repository.anchor import anchored
from contract.repository.config_text import read_laid_out
from contract.repository.free_sizes import (
    axes_from_json,
    axes_to_json,
    ranges_from_json,
    ranges_to_json,
    references_of,
    sizes_from_json,
    sizes_to_json,
)
from contract.repository.model import (
    DEFAULT_CUT_RULE,
    SEGMENT_INPUT,
    SEGMENT_OUTPUT,
    Canary,
    Rows,
    Scores,
    Segment,
    Step,
    Task,
    TensorSpec,
    segment_tensor,
)
from contract.repository.not_shared import NotShared, from_json, to_json
from contract.repository.record import ParityRecord
from contract.repository.unite import Copy, ensemble_of, united_inputs
from contract.tensor_names import names_from_json, names_to_json
from contract.text import TextInput

ALL_TASKS = "all_tasks"
COPY = "copy"
LABELS_FILE = "labels.txt"
TOKENIZER_FILE = "tokenizer.json"
KIND = "espalier_kind"
_PARITY = "parity_sample"
_CUT_RULE = "cut_rule"
_DIGEST_VERSION = "digest_version"
_AXES = "axes"  # names of the free axes of tensors, by the tensors' names
_SIZES = "free_sizes"
_VALUES = "value_ranges"
_WEIGHT_FILES = "weight_files"
_NOT_SHARED = "not_shared"
_TEXT = "text_input"
_NAMES = "tensor_names"
_UNTAKEN = "untaken"  # of each step of an ensemble: what its other outputs are called, by their numbers

# A protobuf class without type information: `Any` at this one boundary.
ModelConfig: Any = model_config_pb2.ModelConfig
_FORMAT: Any = model_config_pb2.ModelInput.Format


def segment_config(segment: Segment) -> Any:
    """Return `segment` as a ModelConfig for Triton's onnxruntime backend: batched without artificial delay, unless rows are coupled."""
    config = ModelConfig(name=segment.name, backend="onnxruntime", max_batch_size=segment.max_batch_rows)
    config.default_model_filename = "model.onnx"
    _add_inputs(config.input, segment.inputs, [spec.layout for spec in segment.inputs])
    _add_tensors(config.output, segment.outputs)
    config.instance_group.add(count=1)  # Triton's own choice on a CPU is two sessions, with the weights in memory twice
    if segment.rows != "coupled":
        config.dynamic_batching.SetInParent()
    _add_warmup(config, segment)
    _set_parameters(
        config,
        {
            KIND: "segment",
            "blocks": f"{segment.blocks[0]}-{segment.blocks[1]}",
            "digest": segment.digest,
            _DIGEST_VERSION: _version_text(segment.digest_version),
            "macs": str(segment.macs),
            "parameters": str(segment.parameters),
            "weight_bytes": str(segment.weight_bytes),
            "activation_bytes": str(segment.activation_bytes),
            "modules": json.dumps(segment.modules),
            "uncounted": json.dumps(segment.uncounted),
            "reason": segment.reason,
            "rows": segment.rows,
            _SIZES: sizes_to_json(segment.sizes),
            _AXES: _axes([*segment.inputs, *segment.outputs]),
            _WEIGHT_FILES: json.dumps(dict(segment.weight_files)) if segment.weight_files else "",
        },
    )
    return config


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
    parameters |= {_SIZES: sizes_to_json(task.sizes), _VALUES: ranges_to_json(task.values), _NAMES: names_to_json(task.names)}
    return _ensemble(task.name, [task], task.steps, parameters)


def kept_config(kept: Task | Canary) -> Any:
    """Return the ensemble of a version that is kept beside the current one: with its number, and a canary with its share."""
    task = kept.task if isinstance(kept, Canary) else kept
    config = task_config(task)
    _set_parameters(config, {"version": task.version, "share": repr(kept.share) if isinstance(kept, Canary) else ""})
    return config


def all_tasks_config(
    tasks: Iterable[Task],
    cuts_left_out: Sequence[str] = (),
    cut_rule: str = DEFAULT_CUT_RULE,
    *,
    digest_version: int = 1,
    copied: bool = True,
    not_shared: Sequence[NotShared] = (),
) -> Any:
    """Return the ensemble of all `tasks`: the outputs of each; a client picks tasks by the outputs that it requests.

    An input that not all tasks take is optional: a request brings what its outputs need. A step that several tasks have in common
    appears once; where tasks have equal outputs, or no output needs all inputs, there are also steps that copy tensors, whose models
    `copy_configs` describes. copied: False leaves that out, for engines that have no such models. digest_version, not_shared: as of
    `Repository`.
    """
    tasks = _in_order(tasks)
    steps = list(dict.fromkeys(step for task in tasks for step in task.steps))
    if copied:
        steps, _ = _for_triton(tasks)
    parameters = {
        KIND: ALL_TASKS,
        "cuts_left_out": json.dumps(list(cuts_left_out)) if cuts_left_out else "",
        _CUT_RULE: cut_rule if cut_rule != DEFAULT_CUT_RULE else "",
        _DIGEST_VERSION: _version_text(digest_version),
        _NOT_SHARED: to_json(not_shared),
    }
    return _ensemble(ALL_TASKS, tasks, steps, parameters)


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
    _add_tensors(config.input, copy.inputs)
    _add_tensors(config.output, copy.outputs)
    config.instance_group.add(count=1)
    config.dynamic_batching.SetInParent()
    _set_parameters(config, {KIND: COPY})
    return config


def _in_order(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: task.name)


def parse_cuts_left_out(config: Any) -> tuple[str, ...]:
    """Return what `all_tasks_config` was told of cuts that were left out."""
    try:
        return tuple(map(str, json.loads(_parameters(config).get("cuts_left_out", "[]"))))
    except ValueError as error:
        raise _incomplete(config.name, "model", error) from error


def parse_cut_rule(config: Any) -> str:
    """Return by what rule `all_tasks_config` was told that the cuts were chosen."""
    return _parameters(config).get(_CUT_RULE, DEFAULT_CUT_RULE)


def parse_digest_version(config: Any) -> int:
    """Return of which version `all_tasks_config` was told that the digests are. Raises RepositoryError."""
    try:
        return _digest_version(_parameters(config))
    except ValueError as error:
        raise _incomplete(config.name, "model", error) from error


def parse_not_shared(config: Any) -> tuple[NotShared, ...]:
    """Return what `all_tasks_config` was told that is not shared. Raises RepositoryError."""
    try:
        return from_json(_parameters(config).get(_NOT_SHARED, ""))
    except ValueError as error:
        raise _incomplete(config.name, "model", error) from error


def to_text(config: Any) -> str:
    """Return `config` as the text of a config.pbtxt."""
    return cast(str, text_format.MessageToString(config))


def parse_text(text: str, where: str) -> Any:
    """Return the ModelConfig that `text` describes. Raises RepositoryError naming `where`."""
    config = ModelConfig()
    if read_laid_out(text, config):
        return config
    try:
        return text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise RepositoryError(f"{where} is not a Triton model configuration: {str(error).rstrip('.')}.") from error


def kind_of(config: Any) -> str:
    """Return "segment", "task", "all_tasks", "copy", or "" for a model that espalier did not write."""
    return _parameters(config).get(KIND, "")


def parse_segment(config: Any, version: str) -> Segment:
    """Return the segment that `segment_config` wrote. Raises RepositoryError."""
    parameters = _parameters(config)
    try:
        first, last = parameters["blocks"].split("-")
        return Segment(
            name=config.name,
            inputs=_with_axes(_inputs(config.input), parameters),
            outputs=_with_axes(tensor_specs(config.output), parameters),
            blocks=(int(first), int(last)),
            digest=parameters["digest"],
            max_batch_rows=config.max_batch_size,
            macs=int(parameters["macs"]),
            parameters=int(parameters["parameters"]),
            weight_bytes=int(parameters["weight_bytes"]),
            activation_bytes=int(parameters["activation_bytes"]),
            modules=tuple(json.loads(parameters["modules"])),
            uncounted=tuple(json.loads(parameters["uncounted"])),
            reason=parameters.get("reason", ""),
            rows=_rows(parameters.get("rows", "")),
            version=version,
            digest_version=_digest_version(parameters),
            sizes=sizes_from_json(parameters.get(_SIZES, "")),
            weight_files=_weight_files(parameters.get(_WEIGHT_FILES, "{}")),
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
            steps=_steps(config),
            inputs=_with_axes(_inputs(config.input), parameters),
            outputs=_with_axes(tensor_specs(config.output), parameters),
            max_batch_rows=config.max_batch_size,
            labels=labels,
            preprocessing=None if described is None else Preprocessing.from_json(described),
            provenance=json.loads(parameters["provenance"]),
            version=version,
            last_version=int(parameters.get("last_version", "0")),
            parity=ParityRecord.from_json(parameters[_PARITY]) if _PARITY in parameters else None,
            scores=_scores(parameters.get("scores", "")),
            sizes=sizes_from_json(parameters.get(_SIZES, "")),
            values=ranges_from_json(parameters.get(_VALUES, "")),
            text=TextInput.from_json(parameters[_TEXT]) if _TEXT in parameters else None,
            names=names_from_json(parameters.get(_NAMES, "")),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise _incomplete(config.name, "task", error) from error


def parse_kept(config: Any, labels: tuple[str, ...]) -> Task:
    """Return the version that `kept_config` wrote. Raises RepositoryError."""
    try:
        version = int(_parameters(config)["version"])
    except (KeyError, ValueError) as error:
        raise _incomplete(config.name, "task", error) from error
    return parse_task(config, labels, str(version))


def parse_canary(config: Any, labels: tuple[str, ...]) -> Canary:
    """Return the canary that `kept_config` wrote. Raises RepositoryError."""
    try:
        return Canary(parse_kept(config, labels), float(_parameters(config)["share"]))
    except (KeyError, ValueError) as error:
        raise _incomplete(config.name, "task", error) from error


def _version_text(version: int) -> str:
    """Return what is written for a version of the digests: nothing for the first, which had no number."""
    return str(version) if version > 1 else ""


def _digest_version(parameters: Mapping[str, str]) -> int:
    version = int(parameters.get(_DIGEST_VERSION, "1"))
    if version < 1:
        raise ValueError(f"the digests are of version {version}")
    return version


def _weight_files(text: str) -> dict[str, int]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(type(count) is int and count >= 0 for count in found.values()):
        raise ValueError(f"{_WEIGHT_FILES} is {text!r}")
    return found


def _incomplete(name: str, kind: str, error: Exception) -> RepositoryError:
    return RepositoryError(f"The configuration of {kind} {name!r} is incomplete or damaged ({error}); export it again.")


def _ensemble(name: str, tasks: Iterable[Task], steps: Iterable[Step], parameters: Mapping[str, str]) -> Any:
    tasks = list(tasks)
    config = ModelConfig(name=name, platform="ensemble", max_batch_size=min(task.max_batch_rows for task in tasks))
    _add_inputs_of_tasks(config.input, tasks)
    for task in tasks:
        _add_tensors(config.output, task.outputs)
        if task.labels:
            # Triton looks for the file in the ensemble's own folder.
            config.output[-1].label_filename = LABELS_FILE if name != ALL_TASKS else f"{task.name}.{LABELS_FILE}"
    steps = list(steps)
    taken = {output.name for task in tasks for output in task.outputs}.union(*(step.inputs for step in steps))
    for step in steps:
        message = config.ensemble_scheduling.step.add(model_name=step.segment, model_version=-1)
        message.input_map.update({segment_tensor(SEGMENT_INPUT, index): tensor for index, tensor in enumerate(step.inputs)})
        outputs = {segment_tensor(SEGMENT_OUTPUT, index): tensor for index, tensor in enumerate(step.outputs)}
        message.output_map.update({name: tensor for name, tensor in outputs.items() if tensor in taken})
    # Triton refuses an ensemble with a tensor that nothing takes; ours are named all the same.
    untaken = [[index for index, tensor in enumerate(step.outputs) if tensor not in taken] for step in steps]
    names = [{str(index): step.outputs[index] for index in found} for step, found in zip(steps, untaken, strict=True)]
    axes = _axes([*tasks[0].inputs, *(output for task in tasks for output in task.outputs)])
    _set_parameters(config, {**parameters, _UNTAKEN: json.dumps(names) if any(names) else "", _AXES: axes})
    return config


def _add_inputs_of_tasks(messages: Any, tasks: Sequence[Task]) -> None:
    """Add what `tasks` take; what not all of them take is optional."""
    inputs = tasks[0].inputs
    if all(task.inputs == inputs for task in tasks):
        said = zip(*(task.input_layouts() for task in tasks), strict=True)
        _add_inputs(messages, inputs, [next(filter(None, layouts), "") for layouts in said])
        return
    inputs = united_inputs(tasks) or inputs
    _add_inputs(messages, inputs, [spec.layout for spec in inputs])
    counts = Counter(spec.name for task in tasks for spec in task.inputs)
    for message in messages:
        message.optional = counts[message.name] < len(tasks)


def _add_tensors(messages: Any, specs: Iterable[TensorSpec]) -> None:
    for spec in specs:
        messages.add(name=spec.name, data_type=data_type(spec.dtype), dims=spec.shape)


def _add_inputs(messages: Any, specs: Sequence[TensorSpec], layouts: Sequence[str]) -> None:
    _add_tensors(messages, specs)
    for message, layout in zip(messages, layouts, strict=True):
        if layout:
            message.format = _FORMAT.Value(f"FORMAT_{layout}")


def _axes(specs: Iterable[TensorSpec]) -> str:
    return axes_to_json((spec.name, spec.axes) for spec in specs)


def _with_axes(specs: Iterable[TensorSpec], parameters: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """Return `specs` with the names of their free axes. Raises ValueError where these do not fit."""
    names = axes_from_json(parameters.get(_AXES, ""))
    named = tuple(replace(spec, axes=names.get(spec.name, ())) for spec in specs)
    for spec in named:
        if spec.axes and [bool(name) for name in spec.axes] != [size < 0 for size in spec.shape]:
            raise ValueError(f"the axes of {spec.name!r} are {list(spec.axes)} and its sizes {list(spec.shape)}")
    return named


def _inputs(messages: Any) -> tuple[TensorSpec, ...]:
    layouts = (_FORMAT.Name(message.format).removeprefix("FORMAT_") for message in messages)
    return tuple(
        replace(spec, layout=layout if layout in get_args(Layout) else "")
        for spec, layout in zip(tensor_specs(messages), layouts, strict=True)
    )


def data_type(dtype: str) -> Any:
    """Return the configuration's value for the v2 protocol's `dtype`; they differ in one word: BYTES is TYPE_STRING."""
    return model_config_pb2.DataType.Value(f"TYPE_{'STRING' if dtype == 'BYTES' else dtype}")


def tensor_specs(messages: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs or outputs of a configuration. Raises ValueError for none."""
    specs = []
    for message in messages:
        dtype = model_config_pb2.DataType.Name(message.data_type).removeprefix("TYPE_")
        specs.append(TensorSpec(message.name, "BYTES" if dtype == "STRING" else dtype, tuple(message.dims)))
    if not specs:
        raise ValueError("a model without inputs or outputs")
    return tuple(specs)


def _steps(config: Any) -> tuple[Step, ...]:
    messages = config.ensemble_scheduling.step
    untaken = json.loads(_parameters(config).get(_UNTAKEN) or "[]") or [{}] * len(messages)
    try:
        return tuple(_step(message, names) for message, names in zip(messages, untaken, strict=True))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{_UNTAKEN} is {untaken!r}") from error


def _step(message: Any, untaken: Mapping[str, str]) -> Step:
    outputs = {**message.output_map, **{segment_tensor(SEGMENT_OUTPUT, int(index)): name for index, name in untaken.items()}}
    return Step(message.model_name, _mapped(message.input_map, SEGMENT_INPUT), _mapped(outputs, SEGMENT_OUTPUT))


def _add_warmup(config: Any, segment: Segment) -> None:
    """Have Triton run the segment once, with one row of zeros, before it says that the model is ready."""
    warmup = config.model_warmup.add(name="one row", batch_size=1)
    for spec, tensor in zip(segment.inputs, config.input, strict=True):
        warmup.inputs[spec.name].data_type = tensor.data_type
        warmup.inputs[spec.name].dims.extend(spec.shape_at(references_of(segment.sizes)))
        warmup.inputs[spec.name].zero_data = True


def _rows(word: str) -> Rows:
    if word not in get_args(Rows):
        raise ValueError(f"rows are {word!r}")
    return cast(Rows, word)


def _scores(word: str) -> Scores:
    if word not in get_args(Scores):
        raise ValueError(f"scores are {word!r}")
    return cast(Scores, word)


def _mapped(names: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """Return the tensors that a step's map gives to `input`, `input_1`, ... in order. Raises KeyError for other names."""
    return tuple(dict(names)[segment_tensor(kind, index)] for index in range(max(1, len(names))))


def _set_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    for key, value in parameters.items():
        if value:
            config.parameters[key].string_value = value


def _parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}
