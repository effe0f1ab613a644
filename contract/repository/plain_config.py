"""What a config.pbtxt that people wrote, or none, says of an ONNX file. Pure functions.

What a configuration leaves out is taken from the file, as Triton does. What contradicts the file is refused, and so is what would make
a model answer otherwise than it does here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from contract.errors import RepositoryError
from contract.repository.config import ALL_TASKS, ModelConfig, data_type, kind_of, tensor_specs

PLATFORM, _BACKEND, MODEL_FILE = "onnxruntime_onnx", "onnxruntime", "model.onnx"
_RUNTIME = "libtriton_onnxruntime.so"  # the backend's own, which Triton writes out
_DEFAULT_MAX_BATCH_SIZE = 4  # Triton's, of a model that can be batched and whose configuration does not say how far
_SCHEDULERS = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
# What changes answers, of a model and of its tensors, and what does not.
_REFUSED = ("sequence_batching", "batch_input", "batch_output", "model_operations", "model_repository_agents")
_REFUSED_OF_TENSORS = ("allow_ragged_batch", "optional", "is_shape_tensor", "is_non_linear_format_io")
_UNHEEDED = (
    *("optimization", "instance_group", "cc_model_filenames", "metric_tags", "parameters", "model_warmup"),
    *("response_cache", "model_metrics"),
)


@dataclass(frozen=True)
class FileTensor:
    """A tensor of an ONNX file. dtype: in the v2 protocol's words, "" where it is of a `kind` (ONNX Runtime's word) that is not served.

    shape: with all axes, -1: any size.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What an ONNX file takes and gives."""

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]


def check_servable(config: Any, has_model_file: bool) -> None:
    """Raise RepositoryError unless `config` is of an ONNX model and asks for nothing else than what is done here.

    has_model_file: whether there is a model.onnx, by which Triton knows what a model is whose configuration does not say it.
    """
    if config.name == ALL_TASKS:
        raise RepositoryError(f"{ALL_TASKS!r} is what espalier calls the model of all of its tasks; rename the folder.")
    if kind_of(config):
        raise RepositoryError(f"It is a {kind_of(config)!r} of another version of espalier; export it again with this one.")
    if config.platform == "ensemble" or config.HasField("ensemble_scheduling"):
        raise RepositoryError("It is an ensemble that espalier did not write; beside what espalier exports, only ONNX is served.")
    wanted = config.backend or config.platform
    if config.platform not in ("", PLATFORM) or config.backend not in ("", _BACKEND):
        raise RepositoryError(f"It is for {wanted!r}; beside what espalier exports, only ONNX (backend {_BACKEND!r}) is served.")
    if not wanted and not config.default_model_filename and not has_model_file:
        raise RepositoryError(
            f"It has no {MODEL_FILE}; beside what espalier exports, only ONNX (backend {_BACKEND!r}) is served."
        )
    asked = [*_asked_for(config)]
    if asked:
        raise RepositoryError(f"Its config.pbtxt asks for {' and '.join(asked)}, which is not offered here.")


def _asked_for(config: Any) -> Iterable[str]:
    present = {field.name for field, _ in config.ListFields()}
    yield from (name for name in _REFUSED if name in present)
    if config.runtime not in ("", _RUNTIME):
        yield f"runtime {config.runtime!r}"
    if config.model_transaction_policy.decoupled:
        yield "model_transaction_policy (decoupled)"
    for tensor in (*config.input, *config.output):
        yield from (f"{name} of {tensor.name!r}" for name in _REFUSED_OF_TENSORS if getattr(tensor, name, False))


def unheeded(config: Any) -> tuple[str, ...]:
    """Return what `config` says that changes no answer and that is not followed here."""
    present = {field.name for field, _ in config.ListFields()}
    batching = (f"dynamic_batching.{field.name}" for field, _ in config.dynamic_batching.ListFields())
    return (*(name for name in _UNHEEDED if name in present), *batching)


def chosen_version(config: Any, versions: Sequence[int]) -> int:
    """Return the one of `versions`, those that are there, ascending, that `config` wants served. Raises RepositoryError."""
    if not versions:
        raise RepositoryError("It has no version folder (such as 1/).")
    policy = config.version_policy
    asked: Sequence[int] = versions[-(policy.latest.num_versions or 1) :]
    if policy.HasField("specific"):
        asked = sorted({*policy.specific.versions})
    elif policy.HasField("all"):
        asked = versions
    missing = [version for version in asked if version not in versions]
    if missing or not asked:
        raise RepositoryError(
            f"Its version_policy names {f'version {missing[0]}' if missing else 'no version'}, which is not there."
        )
    if len(asked) > 1:
        listed = " and ".join(map(str, asked))
        raise RepositoryError(
            f"Its version_policy asks for versions {listed} at once, and one is served; say specific {{ versions: [ {asked[-1]} ] }}."
        )
    return asked[0]


def completed(config: Any, found: Signature) -> Any:
    """Return `config` with what it leaves out, from the file. Raises RepositoryError for what contradicts the file."""
    done = ModelConfig()
    done.CopyFrom(config)
    done.platform, done.backend = PLATFORM, _BACKEND
    if not done.HasField("version_policy"):
        done.version_policy.latest.num_versions = 1
    if done.max_batch_size < 0:
        raise RepositoryError(f"Its max_batch_size is {done.max_batch_size}; it must be 0, for no batch axis, or more.")
    if not (done.input and done.output):
        _complete_batching(done, found)
    _complete_tensors("input", done.input, found.inputs, done.max_batch_size)
    _complete_tensors("output", done.output, found.outputs, done.max_batch_size)
    return done


def _complete_batching(config: Any, found: Signature) -> None:
    """Do as Triton does where a configuration does not say what a model takes or gives: batch if every first axis is open."""
    if not all(tensor.shape[:1] == (-1,) for tensor in (*found.inputs, *found.outputs)):
        return  # one that wants batches all the same is refused at the tensor that has no such axis
    config.max_batch_size = config.max_batch_size or _DEFAULT_MAX_BATCH_SIZE
    if config.max_batch_size > 1 and not any(config.HasField(name) for name in _SCHEDULERS):
        config.dynamic_batching.SetInParent()


def _complete_tensors(word: str, messages: Any, tensors: Sequence[FileTensor], max_batch_size: int) -> None:
    there = {tensor.name: tensor for tensor in tensors}
    if not messages:
        for name in there:
            messages.add(name=name)
    named = [message.name for message in messages]
    unnamed = there.keys() - named if word == "input" else ()  # outputs may be left out, and then nobody sees them
    if not named or unnamed or not there.keys() >= {*named} or len({*named}) < len(named):
        listed, known = (" and ".join(map(repr, names)) or "none" for names in (named, there))
        raise RepositoryError(f"Its config.pbtxt names the {word}s {listed}; those of its file are {known}.")
    for message in messages:
        _complete_tensor(message, there[message.name], batched=max_batch_size > 0)
        _check_tensor(message, there[message.name], max_batch_size)


def _complete_tensor(message: Any, tensor: FileTensor, batched: bool) -> None:
    if not tensor.dtype:
        raise RepositoryError(f"{tensor.name!r} is a {tensor.kind} in its file, which is not served here.")
    message.data_type = message.data_type or data_type(tensor.dtype)
    if not message.dims and not message.HasField("reshape"):
        dims = tensor.shape[1:] if batched else tensor.shape
        message.dims.extend(dims or (1,))  # configurations know no tensors without axes
        if batched and not dims:
            message.reshape.SetInParent()


def _check_tensor(message: Any, tensor: FileTensor, max_batch_size: int) -> None:
    (spec,) = tensor_specs([message])
    if spec.dtype != tensor.dtype:
        raise RepositoryError(f"Its config.pbtxt says that {tensor.name!r} is {spec.dtype}; in its file it is {tensor.dtype}.")
    if max_batch_size and tensor.shape[:1] != (-1,):
        raise RepositoryError(
            f"Its max_batch_size is {max_batch_size}, but in its file {tensor.name!r} has shape {list(tensor.shape)}, with no open first "
            "axis for the rows; say max_batch_size: 0, and dims with all axes."
        )
    shape = shape_in_file(message, tensor, batched=max_batch_size > 0)
    said = (-1, *shape) if max_batch_size else shape
    fits = len(said) == len(tensor.shape) and all(size in (-1, wanted) for size, wanted in zip(tensor.shape, said, strict=True))
    if not fits or not all(size == -1 or size > 0 for size in (*message.dims, *shape)):
        rows = ", the rows first" if max_batch_size else ""
        raise RepositoryError(
            f"Its config.pbtxt says that {tensor.name!r} has shape {list(said)}{rows}; in its file it has {list(tensor.shape)}."
        )
    if not _can_reshape(tuple(message.dims), shape):
        raise RepositoryError(
            f"{tensor.name!r} cannot be reshaped from {list(message.dims)} to {list(shape)}, as its config.pbtxt says."
        )


def shape_in_file(message: Any, tensor: FileTensor, batched: bool) -> tuple[int, ...]:
    """Return the shape, without the batch axis, that the file has for a tensor of the dims in `message`."""
    if not batched and not tensor.shape and all(size == 1 for size in message.dims):
        return ()
    return tuple(message.reshape.shape if message.HasField("reshape") else message.dims)


def _can_reshape(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    open_sizes = (dims.count(-1), shape.count(-1))
    return dims == shape or open_sizes == (1, 1) or (open_sizes == (0, 0) and math.prod(dims) == math.prod(shape))
