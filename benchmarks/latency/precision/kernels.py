"""Which precisions ONNX Runtime has kernels for on this machine: found out by trying, never by a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.framework.errors import PrecisionUnavailable
from benchmarks.framework.options import FP32
from benchmarks.latency.precision.bfloat import in_bf16, to_bf16
from benchmarks.latency.precision.quantise import quantised
from contract.dtypes import Array
from contract.repository import Repository
from exporter.sources.onnx_file import first_line
from serving.engines.onnxruntime.providers import CPU

_Make = Callable[[Repository, Array, Path], Repository]
# (repository in fp32, rows to calibrate with, folder) to the repository that is written there.
MAKE: Mapping[str, _Make] = MappingProxyType({"int8": quantised, "bf16": in_bf16})


def with_kernels(precisions: Sequence[str], *, elsewhere: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of `precisions` in which a network of a convolution and a matrix product can be opened, and why others cannot be.

    int8 is not asked for: a model in int8 says in fp32 what it computes where there are no kernels. Raises PrecisionUnavailable where
    only fp32 would be left of more, unless another engine computes in the others, `elsewhere`.
    """
    if "bf16" not in precisions:
        return tuple(precisions), ()
    try:
        with tried("bf16"):
            ort.InferenceSession(to_bf16(_small_network()).SerializeToString(), providers=[CPU])
    except PrecisionUnavailable as error:
        left = tuple(precision for precision in precisions if precision != "bf16")
        if left == (FP32,) and not elsewhere:
            raise
        return left, ("ONNX Runtime has no kernels for bf16 here; another engine computes in it.",) if elsewhere else (
            str(error),
        )
    return tuple(precisions), ()


@contextmanager
def tried(precision: str) -> Iterator[None]:
    """Raise PrecisionUnavailable for whatever the block raises: ONNX Runtime's exceptions have no common base."""
    try:
        yield
    except Exception as error:
        raise PrecisionUnavailable(precision, CPU, first_line(error).rpartition(" : ")[2]) from error


def _small_network() -> ModelProto:
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape, np.float32), name)
        for name, shape in (("kernel", (4, 3, 1, 1)), ("matrix", (4, 2)))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"]),
        helper.make_node("Flatten", ["map"], ["vector"]),
        helper.make_node("MatMul", ["vector", "matrix"], ["answer"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 1, 1))
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, (1, 2))
    graph = helper.make_graph(nodes, "small", [image], [answer], weights)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
