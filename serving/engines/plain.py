"""Models that espalier did not export: what ONNX Runtime says of their files, and their runs under their own tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from serving.dtypes import BYTES
from serving.engines.base import Array
from serving.engines.opening import PROVIDERS, open_session, session_options
from serving.errors import InvalidRequest, RepositoryError
from serving.repository.config import ModelConfig, parse_text
from serving.repository.files import CONFIG_FILE, PlainFiles, decode
from serving.repository.model import Segment, Task, TensorSpec
from serving.repository.plain import plain_model
from serving.repository.plain_config import MODEL_FILE, FileTensor, Signature, check_servable, chosen_version, completed
from serving.text import printable

_DTYPES = {
    "tensor(bool)": "BOOL",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}


def read_plain(files: PlainFiles) -> tuple[Segment, Task]:
    """Return the model of `files`, for `RepositoryReader`. Its file is opened once, to learn what it takes and gives.

    Raises RepositoryError with the reason why it cannot be served; OSError.
    """
    config = _config(files)
    paths = {path for path, *_ in files.facts}
    check_servable(config, any(f"{version}/{MODEL_FILE}" in paths for version in files.versions))
    version = chosen_version(config, files.versions)
    config.default_model_filename = config.default_model_filename or MODEL_FILE
    file = f"{version}/{config.default_model_filename}"
    if f"{file}/{MODEL_FILE}" in paths:  # a folder, of a model whose weights lie beside it
        file = f"{file}/{MODEL_FILE}"
    if file not in paths:
        raise RepositoryError(f"It has no {file}.")
    found = _signature(files.folder, file)
    done = completed(config, found)
    return plain_model(files, config, done, found, file, _labels(files.folder, done, paths))


def refuse_plain(files: PlainFiles) -> tuple[Segment, Task]:
    """Refuse the model of `files` where Tritons compute. Raises RepositoryError."""
    raise RepositoryError(
        "With --engine triton only what espalier has exported is served; ask Triton for it, or leave the option out."
    )


def run_plain(segment: Segment, session: ort.InferenceSession, inputs: Sequence[Array]) -> Sequence[Array]:
    """Run `session`, that of a plain model's segment, on its inputs in order, each of shape (n, ...). Raises InvalidRequest."""
    given = {spec.name: _to_file(segment, spec, rows) for spec, rows in zip(segment.inputs, inputs, strict=True)}
    results = session.run([spec.name for spec in segment.outputs], given)
    return [_from_file(segment, spec, result) for spec, result in zip(segment.outputs, results, strict=True)]


def _config(files: PlainFiles) -> Any:
    where = f"{files.name}/{CONFIG_FILE}"
    config = ModelConfig() if files.config is None else parse_text(decode(files.config, where), where)
    if config.name not in ("", files.name):
        raise RepositoryError(f"Its config.pbtxt is named {config.name!r}; it must be named like its folder.")
    config.name = files.name
    return config


def _signature(folder: Path, file: str) -> Signature:
    options = session_options(threads=1, spin=False)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = open_session(folder / file, options, PROVIDERS)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        reason = printable(str(error).replace(str(folder / file), file))
        raise RepositoryError(f"ONNX Runtime does not open its {file} ({reason}).") from error
    return Signature(*(tuple(map(_tensor, values)) for values in (session.get_inputs(), session.get_outputs())))


def _tensor(value: ort.NodeArg) -> FileTensor:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return FileTensor(value.name, value.type, _DTYPES.get(value.type, ""), shape)


def _labels(folder: Path, config: Any, paths: set[str]) -> dict[str, tuple[str, ...]]:
    labels = {}
    for output in config.output:
        if output.label_filename and output.label_filename not in paths:
            raise RepositoryError(f"Its labels file {output.label_filename!r} is not beside its config.pbtxt.")
        if output.label_filename:
            text = decode((folder / output.label_filename).read_bytes(), f"{folder.name}/{output.label_filename}")
            labels[output.name] = tuple(text.removesuffix("\n").split("\n"))
    return labels


def _to_file(segment: Segment, spec: TensorSpec, rows: Array) -> Array:
    assert segment.plain is not None
    values = np.ascontiguousarray(rows if segment.plain.has_rows else rows[0])
    if spec.name in segment.plain.shapes:
        values = _reshaped(spec, values, segment.plain.has_rows, segment.plain.shapes[spec.name])
    return values if spec.dtype != BYTES else _text(spec, values)


def _from_file(segment: Segment, spec: TensorSpec, result: Array) -> Array:
    assert segment.plain is not None
    if spec.name in segment.plain.shapes:
        result = _reshaped(spec, result, segment.plain.has_rows, spec.shape)
    if spec.dtype == BYTES:
        flat = np.empty(result.size, object)
        flat[:] = [text.encode() for text in result.ravel().tolist()]
        result = flat.reshape(result.shape)
    return result if segment.plain.has_rows else result[None]


def _reshaped(spec: TensorSpec, values: Array, has_rows: bool, shape: tuple[int, ...]) -> Array:
    try:
        return values.reshape((len(values), *shape) if has_rows else shape)
    except ValueError as error:
        raise InvalidRequest(
            f"Tensor {spec.name!r} of shape {list(values.shape)} has no place in rows of shape {list(shape)}."
        ) from error


def _text(spec: TensorSpec, values: Array) -> Array:
    """Return BYTES as ONNX's strings, which are text."""
    flat = np.empty(values.size, object)
    try:
        flat[:] = [item.decode() for item in values.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Input {spec.name!r} has strings that are not UTF-8; ONNX has no others.") from error
    return flat.reshape(values.shape)
