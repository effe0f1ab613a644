"""Several segments in a row as an ensemble of Triton's: what a task and `all_tasks` are made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contract.repository.config.parameters import AXES, parameters_of, set_parameters
from contract.repository.config.tensors import ModelConfig, add_inputs, add_tensors, axes_text
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Step, Task, segment_tensor
from contract.repository.unite import united_inputs

ALL_TASKS = "all_tasks"
LABELS_FILE = "labels.txt"
_UNTAKEN = "untaken"  # of each step of an ensemble: what its other outputs are called, by their numbers


def ensemble_config(name: str, tasks: Iterable[Task], steps: Iterable[Step], parameters: Mapping[str, str]) -> Any:
    """Return the ensemble `name` of `tasks`, which are made by `steps`; what nothing takes of these is named in a parameter."""
    tasks = list(tasks)
    config = ModelConfig(name=name, platform="ensemble", max_batch_size=min(task.max_batch_rows for task in tasks))
    _add_inputs_of_tasks(config.input, tasks)
    for task in tasks:
        add_tensors(config.output, task.outputs)
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
    axes = axes_text([*tasks[0].inputs, *(output for task in tasks for output in task.outputs)])
    set_parameters(config, {**parameters, _UNTAKEN: json.dumps(names) if any(names) else "", AXES: axes})
    return config


def steps_of(config: Any) -> tuple[Step, ...]:
    """Return the steps of an ensemble. Raises ValueError, KeyError."""
    messages = config.ensemble_scheduling.step
    untaken = json.loads(parameters_of(config).get(_UNTAKEN) or "[]") or [{}] * len(messages)
    try:
        return tuple(_step(message, names) for message, names in zip(messages, untaken, strict=True))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{_UNTAKEN} is {untaken!r}") from error


def _add_inputs_of_tasks(messages: Any, tasks: Sequence[Task]) -> None:
    """Add what `tasks` take; what not all of them take is optional."""
    inputs = tasks[0].inputs
    if all(task.inputs == inputs for task in tasks):
        said = zip(*(task.input_layouts() for task in tasks), strict=True)
        add_inputs(messages, inputs, [next(filter(None, layouts), "") for layouts in said])
        return
    inputs = united_inputs(tasks) or inputs
    add_inputs(messages, inputs, [spec.layout for spec in inputs])
    counts = Counter(spec.name for task in tasks for spec in task.inputs)
    for message in messages:
        message.optional = counts[message.name] < len(tasks)


def _step(message: Any, untaken: Mapping[str, str]) -> Step:
    outputs = {**message.output_map, **{segment_tensor(SEGMENT_OUTPUT, int(index)): name for index, name in untaken.items()}}
    return Step(message.model_name, _mapped(message.input_map, SEGMENT_INPUT), _mapped(outputs, SEGMENT_OUTPUT))


def _mapped(names: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """Return the tensors that a step's map gives to `input`, `input_1`, ... in order. Raises KeyError for other names."""
    return tuple(dict(names)[segment_tensor(kind, index)] for index in range(max(1, len(names))))
