"""A model that espalier did not export, as what everything here is made of: a task with one step, on a segment of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from contract.repository.config import tensor_specs, to_text
from contract.repository.files import PlainFiles
from contract.repository.model import Plain, Segment, Step, Task
from contract.repository.plain_config import Signature, shape_in_file, unheeded


def plain_model(
    files: PlainFiles, written: Any, config: Any, found: Signature, file: str, labels: Mapping[str, tuple[str, ...]]
) -> tuple[Segment, Task]:
    """Return the model of `files`. written: its configuration, and config: completed. file: of its version, below its folder.

    Its segment is batched with other requests only if its configuration has dynamic_batching; otherwise each request is a run, as on
    Triton. It is named by all that it depends on, so that a model that has changed is another segment.
    """
    batched = config.max_batch_size > 0
    inputs, outputs = tensor_specs(config.input), tensor_specs(config.output)
    there = {tensor.name: tensor for tensor in (*found.inputs, *found.outputs)}
    shapes = {message.name: shape_in_file(message, there[message.name], batched) for message in (*config.input, *config.output)}
    plain = Plain(
        file=f"{files.name}/{file}",
        config=to_text(config),
        has_rows=batched,
        shapes={spec.name: shapes[spec.name] for spec in (*inputs, *outputs) if shapes[spec.name] != spec.shape},
        labels=labels,
        unheeded=unheeded(written),
    )
    digest = hashlib.sha256(repr((files.config, files.versions, files.facts)).encode()).hexdigest()
    segment = Segment(
        name=f"{files.name}@{digest[:8]}",
        inputs=inputs,
        outputs=outputs,
        blocks=(0, 0),
        digest="",
        max_batch_rows=max(1, config.max_batch_size),
        rows="" if config.HasField("dynamic_batching") else "coupled",
        version=file.partition("/")[0],
        plain=plain,
    )
    step = Step(segment.name, tuple(spec.name for spec in inputs), tuple(spec.name for spec in outputs))
    task = Task(
        name=files.name,
        steps=(step,),
        inputs=inputs,
        outputs=outputs,
        max_batch_rows=segment.max_batch_rows,
        labels=labels.get(outputs[0].name, ()) if len(outputs) == 1 else (),
        version=segment.version,
        plain=plain,
    )
    return segment, task
