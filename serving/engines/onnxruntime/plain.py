"""Models that espalier did not export: what ONNX Runtime says of their files, and their runs under their own tensor names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from contract.dtypes import BYTES, RUNTIME_DTYPES, Array
from contract.errors import InvalidRequest, RepositoryError
from contract.repository.config import ModelConfig, parse_text
from contract.repository.files import CONFIG_FILE, PlainFiles, decode
from contract.repository.model import Segment, Task, TensorSpec
from contract.repository.plain import plain_model
from contract.repository.plain_config import MODEL_FILE, FileTensor, Signature, check_servable, chosen_version, completed
from contract.units import printable
from serving.engines.onnxruntime.session import PROVIDERS, memory_of, open_session, session_options
from serving.engines.sessions.runtime import SegmentFile
from serving.errors import SegmentTooLarge


def read_plain(files: PlainFiles, memory_limit_bytes: int | None = None) -> tuple[Segment, Task]:
    """Return the model of `files`, for `RepositoryReader`. Its file is opened once, to learn what it takes and gives.

    Raises RepositoryError with the reason why it cannot be served; OSError.
    """
    config = _config(files)
    check_servable(config, any(_model_file(files, version, MODEL_FILE) for version in files.versions))
    version = chosen_version(config, files.versions)
    config.default_model_filename = config.default_model_filename or MODEL_FILE
    file = _model_file(files, version, config.default_model_filename)
    if file is None:
        raise RepositoryError(f"It has no {version}/{config.default_model_filename}.")
    found = _signature(files.folder, file)
    done = completed(config, found)
    segment, task = plain_model(files, config, done, found, file, _labels(files, done))
    size = memory_of(SegmentFile(segment, files.folder / file))
    if memory_limit_bytes is not None and size > memory_limit_bytes:
        raise SegmentTooLarge(files.name, size, memory_limit_bytes)
    return segment, task


def refuse_plain(files: PlainFiles) -> tuple[Segment, Task]:
    """Refuse the model of `files` where Tritons compute. Raises RepositoryError."""
    raise RepositoryError(
        "With Triton as the engine only what espalier has exported is served; ask Triton for it, or take the embedded engine."
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


def _model_file(files: PlainFiles, version: int, name: str) -> str | None:
    """Return where the model of a version is, below its folder: in the file `name`, or in a folder of that name with what belongs to it."""
    file = f"{version}/{name}"
    return next((path for path in (file, f"{file}/{MODEL_FILE}") if path in files.paths), None)


def _signature(folder: Path, file: str) -> Signature:
    options = session_options(threads=1, spin=False)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = open_session(folder / file, options, PROVIDERS)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        reason = str(error)
        for place in (folder.parent, folder.parent.resolve()):  # clients read it, and are not to know where the repository is
            reason = reason.replace(f"{place}/", "")
        reason = printable(reason)
        raise RepositoryError(f"ONNX Runtime does not open its {file} ({reason}).") from error
    return Signature(*(tuple(map(_tensor, values)) for values in (session.get_inputs(), session.get_outputs())))


def _tensor(value: ort.NodeArg) -> FileTensor:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return FileTensor(value.name, value.type, RUNTIME_DTYPES.get(value.type, ""), shape)


def _labels(files: PlainFiles, config: Any) -> dict[str, tuple[str, ...]]:
    named = {output.name: output.label_filename for output in config.output if output.label_filename}
    missing = [file for file in named.values() if file not in files.paths]
    if missing:
        raise RepositoryError(f"Its labels file {missing[0]!r} is not beside its config.pbtxt.")
    texts = {name: decode((files.folder / file).read_bytes(), f"{files.name}/{file}") for name, file in named.items()}
    return {name: tuple(text.removesuffix("\n").split("\n")) for name, text in texts.items()}


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
