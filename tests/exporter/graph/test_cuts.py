from __future__ import annotations

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.cuts import find_exits
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
    """Tensors past which nothing that they need can reach the output."""

    def reached(start: ir.Value, without: ir.Value) -> bool:
        seen = {start}
        for node in graph:
            if any(value in seen for value in node.inputs):
                seen.update(value for value in node.outputs if value is not without)
        return graph.outputs[0] in seen

    def needs(value: ir.Value) -> set[ir.Value]:
        node = value.producer()
        return set().union(*({source} | needs(source) for source in node.inputs)) if node is not None else set()

    made = [value for node in graph for value in node.outputs]
    return {str(value.name) for value in made if not any(reached(before, value) for before in needs(value))}


@st.composite
def wirings(draw: st.DrawFn) -> list[list[int]]:
    length = draw(st.integers(1, 12))
    return [draw(st.lists(st.integers(max(0, i - 3), i), min_size=1, max_size=3)) for i in range(length)]


@given(wirings())
def test_exits_are_the_tensors_past_which_nothing_of_what_they_need_goes_on(wiring: list[list[int]]) -> None:
    graph = _random_graph(wiring)
    assert exits(graph) == _brute_force(graph)


def exits(graph: ir.Graph, sources: tuple[ir.Value, ...] | None = None) -> set[str]:
    found = find_exits(list(graph), graph.inputs if sources is None else sources, lambda value: True)
    return {str(value.name) for value in found}


@given(wirings())
def test_what_may_be_used_on_both_sides_hides_no_exit(wiring: list[list[int]]) -> None:
    graph = _random_graph(wiring)
    assert exits(graph) <= exits(graph, ())


def test_a_residual_network_is_cut_only_between_its_blocks() -> None:
    graph = canonicalise(Net(blocks=(1, 2)).model()).graph
    names = "nchw float scaled stem stem_relu 0.sum 0.out 1.sum 1.out pool flat logits".split()
    assert [value.name for value in find_exits(list(graph), graph.inputs, lambda value: True)] == names
