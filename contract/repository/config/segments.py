"""Segments as configurations for Triton's onnxruntime backend, in both directions."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from contract.repository.config.parameters import (
    AXES,
    DIGEST_VERSION_KEY,
    KIND,
    SIZES,
    digest_version_of,
    incomplete,
    parameters_of,
    set_parameters,
    version_text,
)
from contract.repository.config.tensors import (
    ModelConfig,
    add_inputs,
    add_tensors,
    axes_text,
    input_specs,
    tensor_specs,
    with_axes,
)
from contract.repository.free_sizes import references_of, sizes_from_json, sizes_to_json
from contract.repository.model import Precision, Rows, Segment

_WEIGHT_FILES = "weight_files"
_PRECISION, _STANDS_FOR = "precision", "stands_for"


def segment_config(segment: Segment) -> Any:
    """Return `segment` as a ModelConfig for Triton's onnxruntime backend: batched without artificial delay, unless rows are coupled."""
    config = ModelConfig(name=segment.name, backend="onnxruntime", max_batch_size=segment.max_batch_rows)
    config.default_model_filename = "model.onnx"
    add_inputs(config.input, segment.inputs, [spec.layout for spec in segment.inputs])
    add_tensors(config.output, segment.outputs)
    config.instance_group.add(count=1)  # Triton's own choice on a CPU is two sessions, with the weights in memory twice
    if segment.rows != "coupled":
        config.dynamic_batching.SetInParent()
    _add_warmup(config, segment)
    set_parameters(
        config,
        {
            KIND: "segment",
            "blocks": f"{segment.blocks[0]}-{segment.blocks[1]}",
            "digest": segment.digest,
            DIGEST_VERSION_KEY: version_text(segment.digest_version),
            "macs": str(segment.macs),
            "parameters": str(segment.parameters),
            "weight_bytes": str(segment.weight_bytes),
            "activation_bytes": str(segment.activation_bytes),
            "modules": json.dumps(segment.modules),
            "uncounted": json.dumps(segment.uncounted),
            "reason": segment.reason,
            "rows": segment.rows,
            SIZES: sizes_to_json(segment.sizes),
            AXES: axes_text([*segment.inputs, *segment.outputs]),
            _WEIGHT_FILES: json.dumps(dict(segment.weight_files)) if segment.weight_files else "",
            _PRECISION: "" if segment.precision == "fp32" else segment.precision,
            _STANDS_FOR: segment.stands_for,
        },
    )
    return config


def parse_segment(config: Any, version: str) -> Segment:
    """Return the segment that `segment_config` wrote. Raises RepositoryError."""
    parameters = parameters_of(config)
    try:
        first, last = parameters["blocks"].split("-")
        return Segment(
            name=config.name,
            inputs=with_axes(input_specs(config.input), parameters),
            outputs=with_axes(tensor_specs(config.output), parameters),
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
            digest_version=digest_version_of(parameters),
            sizes=sizes_from_json(parameters.get(SIZES, "")),
            weight_files=_weight_files(parameters.get(_WEIGHT_FILES, "{}")),
            precision=_precision(parameters.get(_PRECISION, "fp32")),
            stands_for=parameters.get(_STANDS_FOR, ""),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise incomplete(config.name, "segment", error) from error


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


def _precision(word: str) -> Precision:
    if word not in get_args(Precision):
        raise ValueError(f"the precision is {word!r}")
    return cast(Precision, word)


def _weight_files(text: str) -> dict[str, int]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(type(count) is int and count >= 0 for count in found.values()):
        raise ValueError(f"{_WEIGHT_FILES} is {text!r}")
    return found
