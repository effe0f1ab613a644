"""What the outputs of a classifier are: logits, or probabilities already. Judged by how its graph ends, and by what comes out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from contract.kinds.kind import Scores

# What these give are numbers of their first input, or between them, at other places or rounded. Integers at the end of a network are told
# by its answer.
_MOVED = (
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Gather",
    "Split",
    "Expand",
    "Dropout",
    "Resize",
)
_MOVES = frozenset((*_MOVED, "Cast", "Clip", "QuantizeLinear", "DequantizeLinear"))
_FRACTIONS = frozenset(("Softmax", "Sigmoid", "HardSigmoid"))
_SUM_TOLERANCE = 1e-3  # of a thousand classes in half precision


def scores_of(output: ir.Value, rows: NDArray[np.generic], *, is_part: bool = False) -> Scores:
    """Return what the scores in an output of a network are, from the graph in canonical form and those answered, `rows` of (n, classes).

    is_part: whether they are the last part of what the output has, behind boxes.
    Softmax may be spelt out in any way: rows that all sum to one show it. What ends in neither Softmax nor Sigmoid is taken for logits,
    a single number for what it is.
    """
    if rows.dtype.kind != "f":
        return "value" if rows.shape[1] == 1 else "logits"
    end = _last_part(output) if is_part else _end(output)
    if end is not None and (end.op_type == "LogSoftmax" or (end.op_type == "Log" and _gives_fractions(_end(end.inputs[0])))):
        return "log_probabilities"
    if rows.shape[1] > 1 and _are_probabilities(rows):
        return "probabilities"
    if _gives_fractions(end):
        return "independent"
    if rows.shape[1] == 1:
        return "value"
    with np.errstate(over="ignore"):
        return "log_probabilities" if _are_probabilities(np.exp(rows.astype(np.float64))) else "logits"


def _are_probabilities(rows: NDArray[np.generic]) -> bool:
    """Tell whether each of `rows` has nothing below zero and sums to one."""
    values = rows.astype(np.float64)
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def _end(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes `value`, behind those that only move its numbers."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _MOVES:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return node


def _last_part(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes the end of `value`, along whatever axis it was put together: the last of what was."""
    node = _end(value)
    return _last_part(node.inputs[-1]) if node is not None and node.op_type == "Concat" else node


def _gives_fractions(node: ir.Node | None) -> bool:
    """Tell whether `node` gives numbers from 0 to 1 that are no logits: an operator for it, or 1 / (1 + exp(x)) spelt out."""
    if node is None:
        return False
    if node.op_type in ("Concat", "Mul"):
        return all(_gives_fractions(_end(value)) for value in node.inputs)
    if node.op_type == "Reciprocal" or (node.op_type == "Div" and _is_constant(node.inputs[0])):
        return _is_one_and_exp(_end(node.inputs[-1]))
    return node.op_type in _FRACTIONS


def _is_one_and_exp(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "Add" or not any(map(_is_constant, node.inputs)):
        return False
    return any(end is not None and end.op_type == "Exp" for end in map(_end, node.inputs))


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None
