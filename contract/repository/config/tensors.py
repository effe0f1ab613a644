"""Inputs and outputs in a configuration, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from contract.preprocessing import Layout
from contract.repository.config.parameters import AXES
from contract.repository.config.triton_protobuf import model_config_pb2
from contract.repository.free_sizes import axes_from_json, axes_to_json
from contract.repository.model import TensorSpec

# A protobuf class without type information: `Any` at this one boundary.
ModelConfig: Any = model_config_pb2.ModelConfig
_FORMAT: Any = model_config_pb2.ModelInput.Format


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


def input_specs(messages: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs of a configuration, with the layouts of images. Raises ValueError for none."""
    layouts = (_FORMAT.Name(message.format).removeprefix("FORMAT_") for message in messages)
    return tuple(
        replace(spec, layout=layout if layout in get_args(Layout) else "")
        for spec, layout in zip(tensor_specs(messages), layouts, strict=True)
    )


def add_tensors(messages: Any, specs: Iterable[TensorSpec]) -> None:
    """Add `specs` to the inputs or outputs of a configuration."""
    for spec in specs:
        messages.add(name=spec.name, data_type=data_type(spec.dtype), dims=spec.shape)


def add_inputs(messages: Any, specs: Sequence[TensorSpec], layouts: Sequence[str]) -> None:
    """Add `specs` to the inputs of a configuration, with how images lie in them, "" where nobody knows."""
    add_tensors(messages, specs)
    for message, layout in zip(messages, layouts, strict=True):
        if layout:
            message.format = _FORMAT.Value(f"FORMAT_{layout}")


def axes_text(specs: Iterable[TensorSpec]) -> str:
    """Return the parameter that names the free axes of `specs`."""
    return axes_to_json((spec.name, spec.axes) for spec in specs)


def with_axes(specs: Iterable[TensorSpec], parameters: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """Return `specs` with the names of their free axes. Raises ValueError where these do not fit."""
    names = axes_from_json(parameters.get(AXES, ""))
    named = tuple(replace(spec, axes=names.get(spec.name, ())) for spec in specs)
    for spec in named:
        if spec.axes and [bool(name) for name in spec.axes] != [size < 0 for size in spec.shape]:
            raise ValueError(f"the axes of {spec.name!r} are {list(spec.axes)} and its sizes {list(spec.shape)}")
    return named
