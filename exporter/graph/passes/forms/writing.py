"""What rewrites of single nodes have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from contract.dtypes import Array

Attributes = Mapping[str, int | float | str | Sequence[int]]


def put(node: ir.Node, operator: str, inputs: Sequence[ir.Value | None], attributes: Attributes, graph: ir.Graph) -> ir.Node:
    """Put a node of the default domain in the place of `node`, which has one output; return it."""
    made = ir.node(operator, inputs, dict(attributes), name=node.name)
    made.metadata_props.update(node.metadata_props)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)
    return made


def bypass(node: ir.Node) -> bool:
    """Let all that read the output of `node` read its first input; return whether that was possible, as not at the network's end."""
    output, source = node.outputs[0], node.inputs[0]
    if output.is_graph_output() or source is None or not output.uses():
        return False
    output.replace_all_uses_with(source)
    return True


def maker(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Return the node of type `operator` that makes `value` for one reader alone; None if there is no such."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != operator or node.domain not in ("", "ai.onnx"):
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


def numbers(value: ir.Value | None) -> Array | None:
    """Return what is in a constant, None where it is none, or a large one."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return tensor.numpy() if tensor is not None and tensor.size <= _LARGEST else None


def whole(value: ir.Value | None) -> list[int] | None:
    """Return the whole numbers in a constant, flattened; None where there are none."""
    array = numbers(value)
    return [int(entry) for entry in array.flatten()] if array is not None and np.issubdtype(array.dtype, np.integer) else None


def constant(array: Array, name: str, graph: ir.Graph, dtype: ir.DataType | None = None) -> ir.Value:
    """Return a new constant in `graph`. name: one that is not taken. dtype: ONNX's, where numpy has none of its own."""
    tensor = ir.Tensor(array, dtype=dtype, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


_LARGEST = 64  # entries of a constant that says sizes, axes, factors: no weight
