"""Takes apart what ONNX Runtime has fused over the place where a network is cut."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.macs import is_product

_FIRST_OPSET = 17  # of the default domain, with LayerNormalization
_EPSILON = 1e-12  # where the node says none
_SUM = 3  # the place of what was added among the outputs of SkipLayerNormalization; mean and deviation are before it


class SplitSkips(ir.passes.InPlacePass):
    """Makes Add and LayerNormalization of each com.microsoft.SkipLayerNormalization, as they were before ONNX Runtime's optimisers.

    Such a node gives the sum and the normalised sum, so that two tensors go on from every layer of a transformer, and none could be a cut.
    A session fuses them again. Those whose mean or deviation is used stay.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        fused = [node for node in model.graph if _can_be_split(node)] if model.opset_imports.get("", 0) >= _FIRST_OPSET else []
        for node in fused:
            _split(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(fused))


def _can_be_split(node: ir.Node) -> bool:
    if (node.domain, node.op_type) != ("com.microsoft", "SkipLayerNormalization"):
        return False
    return not any(value.uses() or value.is_graph_output() for value in node.outputs[1:_SUM])


def _split(graph: ir.Graph, node: ir.Node) -> None:
    first, second, scale, shift, bias = [*node.inputs, None, None][:5]
    nodes = list[ir.Node]()
    if bias is not None:  # of the product that made one of the two
        first, second = (second, first) if _is_made_by_product(second) else (first, second)
        nodes.append(_node(node, "Add", [first, bias]))
        first = nodes[-1].outputs[0]
    nodes.append(_node(node, "Add", [first, second]))
    added = nodes[-1].outputs[0]
    norm = _node(node, "LayerNormalization", [added, scale, *([shift] if shift is not None else [])])
    norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", node.attributes.get_float("epsilon", _EPSILON))
    graph.insert_before(node, [*nodes, norm])
    for old, new in zip((node.outputs[0], *node.outputs[_SUM:]), (norm.outputs[0], added), strict=False):
        name, old.name = old.name, None
        new.name = name or new.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _node(fused: ir.Node, operator: str, inputs: list[ir.Value | None]) -> ir.Node:
    """Return a node in the place of `fused`; what it makes is as large as what that makes."""
    part = ir.node(operator, inputs)
    result, made = fused.outputs[0], part.outputs[0]
    part.name = f"{result.name}/{operator} {inputs[1].name if inputs[1] is not None else ''}"
    made.name, made.shape, made.type = part.name, result.shape, result.type
    part.metadata_props.update(fused.metadata_props)
    return part


def _is_made_by_product(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and is_product(producer)
