"""Checks a request against the model that it asks for; each refusal is one sentence with what came and what is right."""

from __future__ import annotations

from collections.abc import Iterable

from serving.catalog import Model
from serving.dtypes import dtype_name
from serving.engines.base import Array
from serving.errors import InvalidRequest, UnknownTask
from serving.messages import InferRequest, RequestedOutput
from serving.repository.config import ALL_TASKS


def checked_rows(model: Model, request: InferRequest) -> Array:
    """Return the one input tensor of `request`, shape (n, ...) with n >= 1. Raises InvalidRequest."""
    for name in request.inputs:
        if name != model.input.name:
            raise InvalidRequest(f"Model {model.name!r} has no input {name!r}; it takes {_describe_input(model)}.")
    if model.input.name not in request.inputs:
        raise InvalidRequest(f"Model {model.name!r} needs {_describe_input(model)}, which is missing.")
    rows = request.inputs[model.input.name]
    if dtype_name(rows) != model.input.dtype:
        raise InvalidRequest(f"The input is {dtype_name(rows)}, but model {model.name!r} takes {_describe_input(model)}.")
    if rows.shape[1:] != model.input.shape or rows.ndim == 0:
        raise InvalidRequest(f"The input has shape {list(rows.shape)}, but model {model.name!r} takes {_describe_input(model)}.")
    if len(rows) == 0:
        raise InvalidRequest(f"The input has no rows; model {model.name!r} takes {_describe_input(model)} with at least one.")
    return rows


def checked_outputs(model: Model, requested: tuple[RequestedOutput, ...]) -> tuple[RequestedOutput, ...]:
    """Return the outputs to compute, all of them when none was requested. Raises InvalidRequest, UnknownTask."""
    if not requested:
        return tuple(RequestedOutput(name) for name in model.outputs)
    for output in requested:
        _check_output(model, output)
    repeated = _first_repeated(output.name for output in requested)
    if repeated is not None:
        raise InvalidRequest(f"Output {repeated!r} is requested twice; name each output once.")
    return requested


def _check_output(model: Model, output: RequestedOutput) -> None:
    if output.name not in model.outputs:
        if model.name == ALL_TASKS:
            raise UnknownTask(output.name, model.outputs)
        names = ", ".join(repr(name) for name in model.outputs)
        raise InvalidRequest(f"Model {model.name!r} has no output {output.name!r}; it gives {names}.")
    if output.classes < 0:
        raise InvalidRequest(f"Output {output.name!r} asks for {output.classes} classes; ask for at least 1.")
    if output.classes and len(model.outputs[output.name].spec.shape) != 1:
        raise InvalidRequest(f"Output {output.name!r} of model {model.name!r} is no vector of classes; request it as values.")


def _describe_input(model: Model) -> str:
    return f"input {model.input.name!r} ({model.input.dtype}, shape {[-1, *model.input.shape]}, first the rows)"


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
