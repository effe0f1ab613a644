"""Whether a network can be split into rows, and what is wrong with one that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from exporter.errors import UnsupportedModel
from exporter.graph.foreign import operator_name
from exporter.graph.shapes import Shapes, name_of


def check_splittable(name: str, model: ir.Model) -> None:
    """Refuse a model of which what it takes and gives has no batch size that is free. Raises UnsupportedModel."""
    graph = model.graph
    if not graph.inputs or not graph.outputs:
        raise UnsupportedModel(name, "has no input or no output; a task model takes and gives tensors.")
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.dtype is None:
                raise UnsupportedModel(name, f"the {kind} {value.name!r} has no known dtype.")
    for value in graph.inputs:
        if value.shape is not None and not len(value.shape):
            why = (
                f"the input {value.name!r} is one number for all rows; make it a constant, or give it a first dimension for rows."
            )
            raise UnsupportedModel(name, why)
        batch, *others = value.shape or (None,)
        if isinstance(batch, int):
            raise UnsupportedModel(name, f"the batch size is fixed to {batch}; export it with a dynamic first dimension.")
        if any(not isinstance(dim, int) and dim.value in (None, batch.value if batch else None) for dim in others):
            why = f"has the shape {value.shape}; a size other than the batch size is fixed, or has a name of its own."
            raise UnsupportedModel(name, f"the input {value.name!r} {why}")
    _check_dependence(name, graph)


def _check_dependence(name: str, graph: ir.Graph) -> None:
    depending = set(graph.inputs)
    for node in graph:
        if any(value in depending for value in node.inputs):
            depending.update(node.outputs)
    for value in graph.outputs:
        if value not in depending or value in graph.inputs:
            raise UnsupportedModel(name, f"the output {value.name!r} is not computed from an input.")


def check_outputs(name: str, outputs: Sequence[ir.Value], addresses: Mapping[ir.Value, str]) -> None:
    """Refuse a network that gives one value under two names."""
    if len({addresses[value] for value in outputs}) < len(outputs):
        names = ", ".join(name_of(value) for value in outputs)
        raise UnsupportedModel(name, f"gives the same output twice (among {names}); leave one out.")


def why_no_rows(graph: ir.Graph, value: ir.Value, one: Shapes, other: Shapes) -> str:
    """Return what is wrong with an input or output that has no rows. one, other: the shapes for 1 and for 3 rows."""
    found = [shapes.get(name_of(value)) for shapes in (one, other)]
    unknown = next((node for node in graph if _loses_shape(node, one, other)), None)
    if None in found and unknown is not None:
        label = unknown.name or name_of(unknown.outputs[0])
        return f"no shape can be found behind {operator_name(unknown)} (node {label!r}), nor by ONNX Runtime; export it without."
    listed = " and ".join(str(list(shape)) if shape is not None else "unknown" for shape in found)
    wanted = "inputs and outputs must have the batch size as their first dimension and nowhere else"
    return f"{wanted}; the shape of {name_of(value)!r} is {listed} for 1 and 3 rows."


def _loses_shape(node: ir.Node, one: Shapes, other: Shapes) -> bool:
    """Whether the shapes of all that `node` takes are known, and of what it makes are not."""
    taken = [value for value in node.inputs if value is not None and value.const_value is None]
    known, made = ([name_of(value) in one and name_of(value) in other for value in values] for values in (taken, node.outputs))
    return all(known) and not all(made)
