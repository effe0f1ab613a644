"""Requests to measure with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2

from contract.dtypes import NUMPY_DTYPES, Array
from contract.repository import Task

_pb: Any = service_pb2
_JPEG_SIZE = (500, 375)  # as most of ImageNet


def random_rows(task: Task) -> dict[str, Array]:
    """Return one row of random bytes, or numbers like them, for each input of `task`."""
    generator = np.random.default_rng(0)
    return {spec.name: generator.integers(0, 256, (1, *spec.shape)).astype(NUMPY_DTYPES[spec.dtype]) for spec in task.inputs}


def grpc_message(model: str, task: Task, rows: dict[str, Array]) -> bytes:
    """Return a ModelInferRequest to `model` with `rows` as the inputs of `task`."""
    message = _pb.ModelInferRequest(model_name=model)
    for spec in task.inputs:
        message.inputs.add(name=spec.name, datatype=spec.dtype, shape=rows[spec.name].shape)
        message.raw_input_contents.append(rows[spec.name].tobytes())
    return bytes(message.SerializeToString())


def random_jpeg(size: tuple[int, int] = _JPEG_SIZE) -> bytes:
    """Return a JPEG of `size` (width, height) that takes about as many bytes as a photograph: smooth shapes with some grain."""
    generator = np.random.default_rng(0)
    shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = generator.normal(0, 8, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
