"""Gives a traced graph a head of another size.

All tasks share one trace, but each has its own number of classes. Most heads end in a matrix product, whose size is its weight's. Where
the head is a convolution, the trace goes on with a Reshape to (batch, classes), with the number of classes of the network that was traced.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before


def adapt_head(graph: ir.Graph, heads: dict[ir.Value, tuple[int, int]]) -> None:
    """Put the new number of classes wherever the old one occurs behind `heads`: initializers, each with (old, new) first dimension.

    Recorded shapes behind them are forgotten. Constants are nodes or initializers of whole numbers. Changes `graph` in place.
    """
    if not heads:
        return
    sizes = dict(heads.values())
    behind: set[ir.Value] = set(heads)
    for node in graph:
        if not any(value in behind for value in node.inputs):
            continue
        behind.update(node.outputs)
        for value in node.outputs:
            value.shape = None
        if node.op_type == "Reshape" and node.inputs[0] in behind:
            _adapt(node, 1, sizes, graph)


def _adapt(node: ir.Node, position: int, sizes: dict[int, int], graph: ir.Graph) -> None:
    """Replace the old number of classes in the input at `position`, and in what a Concat puts together there."""
    value = node.inputs[position]
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Concat":
        for index in range(len(producer.inputs)):
            _adapt(producer, index, sizes, graph)
        return
    numbers = _numbers(value)
    if numbers is not None and numbers.ndim == 1 and any(int(number) in sizes for number in numbers):
        adapted = [sizes.get(int(number), int(number)) for number in numbers]
        node.replace_input_with(position, builder_before(node, graph, f"classes{position}").integers(adapted))


def _numbers(value: ir.Value | None) -> np.ndarray | None:
    """Return the whole numbers in a constant; None for anything else."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.INT64 else None
