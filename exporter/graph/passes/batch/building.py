"""Adds constants and nodes to a graph, under names that are not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Builder:
    """Adds to `graph`, in front of the node `before`. Names start with `prefix`, which occurs once per graph."""

    def __init__(self, graph: ir.Graph, before: ir.Node, prefix: str) -> None:
        self._graph = graph
        self._before = before
        self._prefix = prefix
        self._count = 0

    def integers(self, numbers: Sequence[int] | NDArray[np.integer]) -> ir.Value:
        """Return a constant int64 tensor of the shape of `numbers`."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def constant(self, values: NDArray[np.generic]) -> ir.Value:
        """Return a constant of the dtype and shape of `values`."""
        tensor = ir.tensor(values, name=self._name())
        value = ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype))
        self._graph.register_initializer(value)
        return value

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float] | None = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Return the output of a new node of the default domain."""
        made = ir.node(operator, inputs, dict(attributes or {}), name=self._name())
        made.outputs[0].name = self._name()
        made.outputs[0].dtype = dtype or ir.DataType.INT64
        self._graph.insert_before(self._before, made)
        return made.outputs[0]

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        """Return the outputs of a copy of `node` that takes `inputs`."""
        made = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs), name=self._name()
        )
        made.metadata_props.update(node.metadata_props)
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name, new.type = self._name(), old.type
        self._graph.insert_before(self._before, made)
        return tuple(made.outputs)

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"


def builder_before(node: ir.Node, graph: ir.Graph, what: str) -> Builder:
    """Return a builder in front of `node`; `what` tells apart several for one node."""
    return Builder(graph, node, f"{node.outputs[0].name}/{what}")
