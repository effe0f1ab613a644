"""Dtypes behind operators that onnx does not know."""

from __future__ import annotations

from itertools import chain

import onnx_ir as ir

from exporter.graph.flow.bodies import bodies_of, has_bodies
from exporter.graph.shapes import has_foreign, infer, name_of

_MAKE_SEQUENCES = frozenset(("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence"))


class ForeignTypes(ir.passes.InPlacePass):
    """Gives a dtype to what has none, as ONNX Runtime infers it. Shapes stay as they are: they are inferred where they are needed."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Note types in place."""
        if not has_foreign(model):
            return ir.passes.PassResult(model, modified=False)
        dtypes, changed = infer(model, batch=1).dtypes, False
        for value in (value for node in model.graph for value in node.outputs):
            if value.dtype is None and name_of(value) in dtypes:
                value.dtype, changed = dtypes[name_of(value)], True
        return ir.passes.PassResult(model, modified=changed)


class NoSequencesAsTensors(ir.passes.InPlacePass):
    """Takes the types from sequences of tensors: onnx_ir notes them as tensors where it infers them, and ONNX Runtime believes it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Forget types in place."""
        functions = model.functions.values()
        inside = [(node, node) for function in functions for node in function.all_nodes()]
        # What a function gives is what its node with bodies gives.
        calls = [
            (node, inner)
            for node in model.graph
            if node.op_identifier() in model.functions
            for inner in model.functions[node.op_identifier()]
            if has_bodies(inner)
        ]
        sequences = [
            value
            for node, made in chain(inside, calls, ((node, node) for node in model.graph))
            for value, is_sequence in zip(node.outputs, _are_sequences(made), strict=True)
            if is_sequence and isinstance(value.type, ir.TensorType)
        ]
        for value in sequences:
            value.type = value.shape = None
        return ir.passes.PassResult(model, modified=bool(sequences))


def _are_sequences(node: ir.Node) -> list[bool]:
    """Return for each output of `node` whether it is known to be a sequence."""
    for body in bodies_of(node):
        results = list(body.outputs)[1 if node.op_type == "Loop" else 0 :]
        return [_is_sequence(value) for value in results]
    return [node.op_type in _MAKE_SEQUENCES] * len(node.outputs)


def _is_sequence(value: ir.Value) -> bool:
    maker = value.producer()
    return isinstance(value.type, ir.SequenceType) or (maker is not None and maker.op_type in _MAKE_SEQUENCES)
