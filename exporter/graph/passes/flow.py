"""Makes operators of control flow: a node with its bodies becomes a function of the model, which takes what they take from outside."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.flow.bodies import captured, has_bodies, inner_graphs, name_body, number_values
from exporter.graph.foreign import CONTROL_FLOW, kind_of
from exporter.graph.passes.constants import FoldConstants

_SMALL = 1024  # bytes of whole numbers that are a part of the body: counts, axes, shapes


class BodiesAsFunctions(ir.passes.InPlacePass):
    """Puts each node with bodies into a function of its own: then its inputs are all that it depends on.

    Weights inside, and those that bodies take from outside, become inputs; small whole numbers become constants inside, wherever they
    were. What depends on sizes that are known is folded before: an If whose condition is constant disappears.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        if not any(map(has_bodies, model.graph)):
            return ir.passes.PassResult(model, modified=False)
        common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
        FoldConstants()(model)
        for graph in (graph for node in model.graph for graph in inner_graphs(node)):
            _end_inside(graph)
        ir.passes.Sequential(
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.RemoveUnusedNodesPass(),
        )(model)
        for number, node in enumerate([node for node in model.graph if has_bodies(node)]):
            _put_into_function(model, node, f"{node.op_type}_{number}")
        return ir.passes.PassResult(model, modified=True)


class NamedBodies(ir.passes.InPlacePass):
    """Names functions by what they compute, and leaves one of those that compute the same. To be run when nothing changes any more."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        calls = [node for node in model.graph if node.domain == CONTROL_FLOW]
        if not calls:
            return ir.passes.PassResult(model, modified=False)
        functions, changed = {key: _named(function) for key, function in model.functions.items()}, False
        model.functions.clear()
        for node in calls:
            function = functions[node.op_identifier()]
            model.functions[function.identifier()] = function
            changed |= node.op_type != function.name
            node.op_type = function.name
        return ir.passes.PassResult(model, modified=changed)


def _named(function: ir.Function) -> ir.Function:
    for node in function:
        for graph in inner_graphs(node):
            _end_inside(graph)
    function.name = name_body(function, kind_of(function.name))
    number_values(function)
    return function


def _put_into_function(model: ir.Model, node: ir.Node, name: str) -> None:
    """Put `node` into a function called `name`, and a call in its place."""
    taken = dict.fromkeys(value for value in (*node.inputs, *captured(node)) if value is not None)
    actual = [value for value in taken if not _is_part(value)]
    call = ir.Node(
        CONTROL_FLOW, name, actual, num_outputs=len(node.outputs), name=node.name, metadata_props=dict(node.metadata_props)
    )
    model.graph.insert_before(node, call)
    for old, new in zip(node.outputs, call.outputs, strict=True):
        new.name, new.shape, new.type = old.name, old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    model.graph.remove(node)
    formal = {value: ir.Value(name=value.name, shape=value.shape, type=value.type) for value in actual}
    constants = {
        value: _constant(value, value.const_value) for value in taken if value.const_value is not None and _is_part(value)
    }
    _replace(node, formal | {value: constant.outputs[0] for value, constant in constants.items()})
    nodes, opsets = [*constants.values(), node], _opsets(model, node)
    graph = ir.Graph(list(formal.values()), list(node.outputs), nodes=nodes, opset_imports=opsets, name=name)
    function = ir.Function(CONTROL_FLOW, name, graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    model.opset_imports[CONTROL_FLOW] = 1


def _opsets(model: ir.Model, node: ir.Node) -> dict[str, int]:
    """Return the opsets of what is in the function that is made of `node`."""
    domains = {"", node.domain, *(inner.domain for graph in inner_graphs(node) for inner in graph)}
    return {domain: version for domain, version in model.opset_imports.items() if domain in domains}


def _is_part(value: ir.Value) -> bool:
    """Whether `value` is a small constant without fractions: it says how often and where, and is no weight."""
    tensor = value.const_value if value.is_initializer() else None
    return tensor is not None and not tensor.dtype.is_floating_point() and tensor.nbytes <= _SMALL


def _constant(value: ir.Value, tensor: ir.TensorProtocol) -> ir.Node:
    node = ir.node("Constant", [], {"value": ir.tensor(tensor.numpy(), dtype=tensor.dtype)})
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = value.name, value.shape, value.type
    return node


def _replace(node: ir.Node, inside: dict[ir.Value, ir.Value]) -> None:
    """Let `node`, and all that is inside of it, take other values."""
    for user in (node, *(inner for graph in inner_graphs(node) for inner in graph)):
        for position, value in enumerate(user.inputs):
            if value in inside:
                user.replace_input_with(position, inside[value])


def _end_inside(graph: ir.Graph) -> None:
    """Let each result of `graph` be made in it by a node: ONNX Runtime gives nothing on that comes from outside."""
    own = {value for node in graph if node.op_type != "Constant" for value in node.outputs}.union(graph.inputs)
    for index, value in enumerate(graph.outputs):
        if value in own and graph.outputs.count(value) == 1:
            continue
        copy = ir.node("Identity", [value])
        copy.outputs[0].name = f"{value.name}_result_{index}"
        copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
        graph.append(copy)
        graph.outputs[index] = copy.outputs[0]
