"""Checks a request against the model that it asks for; each refusal is one sentence with what came and what is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from contract.dtypes import Array, dtype_name
from contract.errors import InvalidRequest, UnknownTask
from contract.repository.config import ALL_TASKS
from contract.repository.model import TensorSpec
from contract.units import listed, quoted
from serving.catalog import Model
from serving.errors import TooManyNames
from serving.requests import InferRequest, RequestedOutput

# The element types that Triton ranks.
CLASS_DTYPES = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
SPARE_NAMES = 16  # that a request may have beside those of the model: tasks may have gone since its client looked


def checked_inputs(model: Model, request: InferRequest, outputs: Iterable[str] | None = None) -> Mapping[str, Array]:
    """Return the input tensors of `request` by name, each of shape (n, ...) with one n >= 1: 1 where `model` has no rows.

    outputs: that are asked for; None: all. An input that only the tasks of others take may be missing; where it is there, it must be
    right, and is left out. Raises InvalidRequest.
    """
    known = {spec.name for spec in model.inputs}
    for name in request.inputs:
        if name not in known:
            raise InvalidRequest(f"Model {model.name!r} has no input {quoted(name)}; it takes {_describe_inputs(model)}.")
    takers = _takers(model, model.outputs if outputs is None else outputs)
    for spec in model.inputs:
        if spec.name in request.inputs or takers is None or takers.get(spec.name):
            _check_input(model, spec, request.inputs.get(spec.name), () if takers is None else takers[spec.name])
    if not model.has_rows:
        return {spec.name: request.inputs[spec.name][None] for spec in model.inputs}
    rows = {spec.name: len(request.inputs[spec.name]) for spec in model.inputs if spec.name in request.inputs}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{count} in {name!r}" for name, count in rows.items())
        raise InvalidRequest(f"The inputs of model {model.name!r} have different numbers of rows ({counts}); send equally many.")
    if model.plain is not None and max(rows.values()) > model.max_batch_rows:
        raise InvalidRequest(
            f"The request has {max(rows.values())} rows, but the max_batch_size of model {model.name!r} is {model.max_batch_rows}; "
            "send it in parts."
        )
    return {spec.name: request.inputs[spec.name] for spec in model.inputs if takers is None or takers.get(spec.name)}


def without_inputs(model: Model, request: InferRequest, outputs: Sequence[RequestedOutput]) -> dict[str, str]:
    """Return a sentence for each of `outputs` whose task takes an input that `request` does not bring; none, if all do."""
    if not model.is_mixed:
        return {}
    errors = {}
    for output in outputs:
        needs = model.outputs[output.name].needs
        for spec in model.inputs:
            if spec.name not in request.inputs and (needs is None or spec.name in needs):
                errors[output.name] = f"{_missing(model, spec, [model.outputs[output.name].task])}"
    return errors if len(errors) < len(outputs) else {}


def _takers(model: Model, outputs: Iterable[str]) -> Mapping[str, Sequence[str]] | None:
    """Return for each input the tasks with one of `outputs` that take it; None where all tasks of `model` take all inputs."""
    if not model.is_mixed:
        return None
    found: dict[str, dict[str, None]] = {spec.name: {} for spec in model.inputs}
    for output in (model.outputs[name] for name in outputs):
        for name in found if output.needs is None else output.needs:
            found[name][output.task] = None
    return {name: [*tasks] for name, tasks in found.items()}


def _check_input(model: Model, spec: TensorSpec, rows: Array | None, takers: Sequence[str] = ()) -> None:
    if rows is None:
        raise InvalidRequest(_missing(model, spec, takers))
    is_right = dtype_name(rows) == spec.dtype and _fits(rows.shape, model.whole_shape(spec))
    if is_right and (len(rows) or not model.has_rows):
        return  # before any sentence is made
    which = "The input" if len(model.inputs) == 1 else f"The input {model.shown(spec.name)!r}"
    takes = f"model {model.name!r} takes {_describe_input(model, spec)}"
    if dtype_name(rows) != spec.dtype:
        raise InvalidRequest(f"{which} is {dtype_name(rows)}, but {takes}.")
    if not _fits(rows.shape, model.whole_shape(spec)):
        raise InvalidRequest(f"{which} has shape {list(rows.shape)}, but {takes}.")
    if model.has_rows and len(rows) == 0:
        raise InvalidRequest(f"{which} has no rows; {takes} with at least one.")


def _missing(model: Model, spec: TensorSpec, takers: Sequence[str]) -> str:
    who = f" for {listed([repr(task) for task in takers])}" if takers else ""
    return f"Model {model.name!r} needs {_describe_input(model, spec)}{who}, which is missing."


def check_count(model: Model, requested: tuple[RequestedOutput, ...], of_canaries: int = 0) -> None:
    """Raise TooManyNames where more outputs are named than the model has, and some that have gone; what follows looks at each.

    of_canaries: outputs of versions that may answer in its place.
    """
    if len(requested) > len(model.outputs) + of_canaries + SPARE_NAMES:
        raise TooManyNames(len(requested), len(model.outputs), "outputs", f"model {model.name!r}")


def known_outputs(
    model: Model, requested: tuple[RequestedOutput, ...], partial: bool
) -> tuple[tuple[RequestedOutput, ...], dict[str, str]]:
    """Return what can be checked further, and a sentence for each output that is missing; with `partial` only, and if not all are.

    Raises InvalidRequest for an output that is named twice.
    """
    if not requested:
        return requested, {}
    repeated = _first_repeated(output.name for output in requested)
    if repeated is not None:
        raise InvalidRequest(f"Output {quoted(repeated)} is requested twice; name each output once.")
    missing = [output for output in requested if output.name not in model.outputs]
    if not partial or len(missing) == len(requested):
        return requested, {}
    errors = {output.name: str(_unknown_output(model, output.name)) for output in missing}
    return tuple(output for output in requested if output.name not in errors), errors


def checked_outputs(model: Model, requested: tuple[RequestedOutput, ...]) -> tuple[RequestedOutput, ...]:
    """Return the outputs to compute, all of them when none was requested. Raises InvalidRequest, UnknownTask."""
    if not requested:
        return tuple(RequestedOutput(name) for name in model.outputs)
    for output in requested:
        _check_output(model, output)
    return requested


def _check_output(model: Model, output: RequestedOutput) -> None:
    if output.name not in model.outputs:
        raise _unknown_output(model, output.name)
    if output.classes < 0:
        raise InvalidRequest(f"Output {output.name!r} asks for {output.classes} classes; ask for at least 1.")
    if output.classes and len(model.outputs[output.name].spec.shape) != 1:
        raise InvalidRequest(f"Output {output.name!r} of model {model.name!r} is no vector of classes; request it as values.")
    if output.classes and model.outputs[output.name].spec.dtype not in CLASS_DTYPES:
        dtype = model.outputs[output.name].spec.dtype
        raise InvalidRequest(f"Output {output.name!r} is {dtype}, which has no classes as on Triton; request it as values.")


def _unknown_output(model: Model, name: str) -> InvalidRequest:
    if model.name == ALL_TASKS:
        return UnknownTask(name, model.outputs)
    names = listed([repr(model.shown(known)) for known in model.outputs])
    return InvalidRequest(f"Model {model.name!r} has no output {quoted(name)}; it gives {names}.")


def _describe_inputs(model: Model) -> str:
    return " and ".join(_describe_input(model, spec) for spec in model.inputs)


def _describe_input(model: Model, spec: TensorSpec) -> str:
    return f"input {model.shown(spec.name)!r} ({spec.dtype}, shape {model.whole_shape(spec)}{', first the rows' if model.has_rows else ''})"


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(size in (-1, given) for given, size in zip(shape, wanted, strict=True))


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
