"""Spells out operators that ONNX Runtime's optimisers write as if they were ONNX's, where ONNX has none of that name (yet).

Its own LayerNormalization is in files of opsets before 17, and SimplifiedLayerNormalization (RMSNorm) in those of any. Sessions fuse
them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from exporter.errors import BadModel

_DEFAULT = ("", "ai.onnx")
_SPELT_OUT = ("LayerNormalization", "SimplifiedLayerNormalization")
_EPSILON = 1e-5  # where a node says none
_AXES_AS_INPUT = 18  # the first opset whose ReduceMean takes them so


def spell_out(path: Path, proto: onnx.ModelProto) -> str | None:
    """Put earlier operators in the place of what ONNX lacks in `proto`, and return that in a sentence; None where it lacks nothing.

    Raises BadModel, naming the operator, for what nobody here can spell out.
    """
    version: int | None = next((opset.version for opset in proto.opset_import if opset.domain in _DEFAULT), None)
    if version is None:
        return None
    known = {(function.domain, function.name) for function in proto.functions}
    nodes, missing = list[onnx.NodeProto](), set[str]()
    for node in proto.graph.node:
        if _is_missing(node, version) and (node.domain, node.op_type) not in known:
            nodes += _Speller(path, proto, version).spell(node)
            missing.add(node.op_type)
        else:
            nodes.append(node)
    if not missing:
        return None
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return (
        f"has {' and '.join(sorted(missing))} of ONNX Runtime, which ONNX lacks in opset {version}: spelt out by other operators."
    )


def _is_missing(node: onnx.NodeProto, version: int) -> bool:
    return node.domain in _DEFAULT and not defs.has(node.op_type, max_inclusive_version=version)


class _Speller:
    """Spells out nodes of `proto`, whose constants it adds to it."""

    def __init__(self, path: Path, proto: onnx.ModelProto, version: int) -> None:
        self._path, self._graph, self._version = path, proto.graph, version
        self._prefix, self._nodes = "", list[onnx.NodeProto]()

    def spell(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return what computes the first output of `node`."""
        if node.op_type not in _SPELT_OUT or not node.output or len(node.input) < 2 or self._uses_more(node):
            raise BadModel(self._path, self._refusal(node))
        self._prefix, self._nodes = f"{node.output[0]}/spelt out", []
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        kind, axes = self._scale_of(node)
        source = self._wide(node.input[0], kind)
        if node.op_type == "LayerNormalization":
            source = self._node("Sub", source, self._mean(source, axes))
        square = self._node("Pow", source, self._constant("two", np.float32(2)))
        spread = self._node(
            "Add", self._mean(square, axes), self._constant("epsilon", np.float32(given.get("epsilon", _EPSILON)))
        )
        result = self._narrow(self._node("Div", source, self._node("Sqrt", spread)), kind)
        for operator, factor in zip(("Mul", "Add"), node.input[1:3], strict=False):
            result = self._node(operator, result, factor) if factor else result
        self._nodes[-1].output[0] = node.output[0]
        return self._nodes

    def _uses_more(self, node: onnx.NodeProto) -> bool:
        """Whether anything takes the mean or the deviation."""
        more = {name for name in node.output[1:] if name}
        taken = {name for other in self._graph.node for name in other.input} | {value.name for value in self._graph.output}
        return not more.isdisjoint(taken)

    def _scale_of(self, node: onnx.NodeProto) -> tuple[int, list[int]]:
        """Return the type of the scale, and the axes that are normalised: as many as it has. Raises BadModel for one that is computed."""
        scale = next((tensor for tensor in self._graph.initializer if tensor.name == node.input[1]), None)
        if scale is None or not scale.dims:
            raise BadModel(self._path, self._refusal(node))
        return scale.data_type, [*range(-len(scale.dims), 0)]

    def _refusal(self, node: onnx.NodeProto) -> str:
        label = node.name or next(iter(node.output), "")
        before = "give the file as it was before ONNX Runtime optimised it, or " if node.op_type in _SPELT_OUT else ""
        return f"has the operator {node.op_type} (node {label!r}), which ONNX lacks in opset {self._version}; {before}export it without it."

    def _mean(self, source: str, axes: Sequence[int]) -> str:
        if self._version >= _AXES_AS_INPUT:
            return self._node("ReduceMean", source, self._constant("axes", np.array(axes, np.int64)), keepdims=1)
        return self._node("ReduceMean", source, axes=axes, keepdims=1)

    def _wide(self, source: str, kind: int) -> str:
        """Return `source` with the precision in which means are taken."""
        return source if kind == TensorProto.FLOAT else self._node("Cast", source, to=TensorProto.FLOAT)

    def _narrow(self, result: str, kind: int) -> str:
        return result if kind == TensorProto.FLOAT else self._node("Cast", result, to=kind)

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self._prefix} {len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, what: str, array: np.ndarray | np.generic) -> str:
        name = f"{self._prefix} {what}"
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name
