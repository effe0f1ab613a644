"""Rewritings of a network that compute something else, in place of the exporter's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import pytest

from exporter.graph.passes.canonical import canonicalise

Pass = Callable[..., ir.Model]


def scaled(model: ir.Model, known: object = None, check: object = None) -> ir.Model:
    """A pass that makes the largest weight one per cent larger."""
    value = max(model.graph.initializers.values(), key=lambda value: value.const_value.nbytes)  # type: ignore[union-attr]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)  # type: ignore[union-attr]
    return canonicalise(model)


def without_a_relu(model: ir.Model, known: object = None, check: object = None) -> ir.Model:
    """A pass that takes an activation for something that does nothing."""
    relu = next(node for node in model.graph if node.op_type == "Relu")
    relu.outputs[0].replace_all_uses_with(relu.inputs[0])
    return canonicalise(model)


def with_fewer_classes(model: ir.Model, known: object = None, check: object = None) -> ir.Model:
    """A pass that loses a class."""
    (output,) = model.graph.outputs
    value = ir.Value(name="first", const_value=ir.tensor(np.array([0, 1], np.int64), name="first"))
    model.graph.register_initializer(value)
    node = ir.node("Gather", [output, value], {"axis": 1})
    (found,) = node.outputs
    found.name, found.shape, found.type = "fewer", ir.Shape(["batch", 2]), output.type
    model.graph.append(node)
    model.graph.outputs[0] = found
    found.name, output.name = output.name, "all"
    return canonicalise(model)


@contextmanager
def rewritten_by(wrong: Pass) -> Iterator[None]:
    """Have all that is read rewritten by `wrong`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.sources.sandbox.canonicalise", wrong)
        yield
