from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.cuts import find_cut_points
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graphs import Net


def _random_graph(wiring: list[list[int]]) -> ir.Graph:
    """Node i takes the tensors wiring[i] (0 is the input, j the output of node j); dead nodes are removed."""
    values = [ir.Value(name="image", shape=ir.Shape(["batch", 4]), type=ir.TensorType(ir.DataType.FLOAT))]
    nodes = []
    for sources in wiring:
        node = ir.node("Sum", [values[source] for source in sources])
        nodes.append(node)
        values.append(node.outputs[0])
    graph = ir.Graph([values[0]], [values[-1]], nodes=nodes, opset_imports={"": 18})
    model = ir.Model(graph, ir_version=9)
    ir.passes.common.NameFixPass()(model)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    return graph


def _brute_force(graph: ir.Graph) -> set[str]:
    """Tensors without which the output cannot be reached from the input."""

    def reachable(without: ir.Value | None) -> bool:
        seen = {graph.inputs[0]} - {without}
        for node in graph:
            if any(value in seen for value in node.inputs):
                seen.update(value for value in node.outputs if value is not without)
        return graph.outputs[0] in seen

    values = [graph.inputs[0], *(value for node in graph for value in node.outputs)]
    return {str(value.name) for value in values if not reachable(value)}


@st.composite
def wirings(draw: st.DrawFn) -> list[list[int]]:
    length = draw(st.integers(1, 12))
    return [draw(st.lists(st.integers(max(0, i - 3), i), min_size=1, max_size=3)) for i in range(length)]


@given(wirings())
def test_cut_points_are_exactly_the_dominators_of_the_output(wiring: list[list[int]]) -> None:
    graph = _random_graph(wiring)
    assert {str(value.name) for value in find_cut_points(list(graph), graph.inputs[0], list(graph.outputs))} == _brute_force(
        graph
    )


def test_a_residual_network_is_cut_only_between_its_blocks() -> None:
    graph = canonicalise(Net(blocks=(1, 2)).model()).graph
    names = [value.name for value in find_cut_points(list(graph), graph.inputs[0], list(graph.outputs))]
    assert names == [
        "image",
        "nchw",
        "float",
        "scaled",
        "stem",
        "stem_relu",
        "0.sum",
        "0.out",
        "1.sum",
        "1.out",
        "pool",
        "flat",
        "logits",
    ]
