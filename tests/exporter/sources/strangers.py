"""Tiny files as other exporters write them: a convolution, a pooling, what a test is about, and a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.dtypes import Array
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import canonical_form

FEATURES, CLASSES, SIZE = 8, 5, 6
_RNG = np.random.default_rng(0)
KERNEL = (_RNG.standard_normal((FEATURES, 3, 3, 3)) * 0.3).astype(np.float32)
HEAD = (_RNG.standard_normal((FEATURES, CLASSES)) * 0.3).astype(np.float32)
Dim = int | str


def stranger(
    middle: Sequence[onnx.NodeProto] = (),
    features: str = "features",
    weights: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 18,
    domains: Sequence[tuple[str, int]] = (),
    batch: Dim = "N",
) -> onnx.ModelProto:
    """float32 (batch, 3, 6, 6) -> "features", of shape (batch, 8) -> `middle` -> `features` -> "logits", of shape (batch, 5).

    outputs: others than the logits; the head goes then.
    """
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["conv"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["features"]),
        *middle,
    ]
    if outputs is None:
        nodes.append(helper.make_node("MatMul", [features, "head"], ["logits"], name="head"))
        outputs = [tensor("logits", [batch, CLASSES])]
    initializers = [numpy_helper.from_array(KERNEL, "kernel"), numpy_helper.from_array(HEAD, "head"), *weights]
    graph = helper.make_graph(nodes, "g", [tensor("image", [batch, 3, SIZE, SIZE])], list(outputs), initializers)
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), *domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def tensor(name: str, shape: Sequence[Dim | None], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(folder: Path, proto: onnx.ModelProto, name: str = "net.onnx") -> Path:
    (folder / name).write_bytes(proto.SerializeToString())
    return folder / name


def images(rows: int) -> Array:
    return np.random.default_rng(1).standard_normal((rows, 3, SIZE, SIZE)).astype(np.float32)


def answers(path: Path, rows: Array) -> list[Array]:
    """What the canonical form of the file at `path` answers."""
    return list(open_session(canonical_form("net", load_onnx(path))).run(None, {"image": rows}))


def given(path: Path, rows: Array, outputs: Sequence[str] | None = None) -> list[Array]:
    """What the file itself answers, all rows at once."""
    return list(open_session(path).run(outputs, {"image": rows}))
