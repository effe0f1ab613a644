from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from contract.costs import shared_cost
from contract.repository import Repository, Step, Task
from espalier.figures.repository.flow import make_flow
from espalier.figures.repository.frame import headline
from espalier.figures.repository.graph import Graph, make_graph
from espalier.figures.repository.layout import make_layout
from espalier.figures.repository.order import count_crossings, find_order
from espalier.figures.repository.place import Room, spread
from espalier.figures.repository.shapes import ON, Rectangle, Ribbon, Text
from espalier.figures.repository.sizes import MIN_THICKNESS
from espalier.figures.repository.text import LABEL_SIZE, LINE_HEIGHT, MACS, WEIGHTS, module_range
from espalier.figures.text import shorten, text_width
from tests.espalier.families import AGE, families, family, segment, trees

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

UNITS = st.sampled_from([MACS, WEIGHTS])
TOLERANCE = 1e-6
DEMO = family([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0)], [17, 5, 8, 2])


def graph_of(repository: Repository) -> Graph:
    owners = {spec.name: task.name for task in repository.tasks.values() for spec in task.outputs}
    return make_graph(make_flow(repository), repository.segments, owners)


def extent(text: Text) -> Rectangle:
    width = text_width(text.text, text.size, text.bold)
    left = {"left": text.x, "center": text.x - width / 2, "right": text.x - width}[text.anchor]
    return Rectangle(left, text.y - text.size / 2, width, text.size, "")


def overlap(one: Rectangle, two: Rectangle) -> bool:
    return (
        min(one.x + one.width, two.x + two.width) - max(one.x, two.x) > TOLERANCE
        and min(one.y + one.height, two.y + two.height) - max(one.y, two.y) > TOLERANCE
    )


def passages(ribbon: Ribbon) -> list[Rectangle]:
    """Return where a ribbon is level on its way through a column."""
    return [
        Rectangle(left[0], left[1], right[0] - left[0], left[2] - left[1], "")
        for left, right in list(pairwise(ribbon.stations))[1::2]
    ]


@given(families(), UNITS)
@example(DEMO, MACS)
@settings(max_examples=60)
def test_no_two_things_are_in_the_same_place(repository: Repository, unit: str) -> None:
    layout = make_layout(repository, unit)
    ways = [passage for ribbon in layout.ribbons for passage in passages(ribbon)]
    words = [extent(text) for text in (*layout.texts, *layout.ends.values()) if not text.paint.startswith(ON)]
    for one, two in combinations([*layout.boxes, *ways], 2):
        assert not overlap(one, two)
    for word in words:
        assert not any(overlap(word, other) for other in (*layout.boxes, *layout.rectangles))
    for one, two in combinations(words, 2):
        assert not overlap(one, two)


@given(families(), UNITS)
@settings(max_examples=60)
def test_a_box_is_as_thick_as_its_segment_costs(repository: Repository, unit: str) -> None:
    layout = make_layout(repository, unit)
    assert {box.segment for box in layout.boxes} == repository.segments.keys()
    for box in layout.boxes:
        used = repository.segments[box.segment]
        assert box.cost == (used.weight_bytes if unit == WEIGHTS else used.macs * box.streams)
        assert box.height == pytest.approx(max(MIN_THICKNESS, box.cost * layout.scale))


@pytest.mark.slow
@given(families(), UNITS)
@settings(max_examples=60)
def test_everything_is_on_the_canvas_and_every_output_ends_on_the_right(repository: Repository, unit: str) -> None:
    layout = make_layout(repository, unit)
    for item in (*layout.boxes, *layout.rectangles, *map(extent, (*layout.texts, *layout.ends.values()))):
        assert 0 <= item.x <= item.x + item.width <= layout.width
        assert 0 <= item.y <= item.y + item.height <= layout.height
    for ribbon in layout.ribbons:
        assert all(0 <= x <= layout.width and 0 <= upper <= lower <= layout.height for x, upper, lower in ribbon.stations)
        assert [x for x, _, _ in ribbon.stations] == sorted(x for x, _, _ in ribbon.stations)
    assert layout.ends.keys() == {spec.name for task in repository.tasks.values() for spec in task.outputs}
    right = max(box.x + box.width for box in layout.boxes)
    assert all(end.x > right for end in layout.ends.values())
    ends = sorted(end.y for end in layout.ends.values())
    assert all(below - above >= LINE_HEIGHT for above, below in pairwise(ends))


@given(families())
@settings(max_examples=60)
def test_ribbons_are_the_tensors_that_go_from_one_segment_to_the_next(repository: Repository) -> None:
    layout = make_layout(repository)
    flow = make_flow(repository)
    assert len(layout.ribbons) == sum(len(set(stream.inputs)) for run in flow.runs for stream in run.streams) + len(flow.outputs)
    edges = {round(box.x, 6): box for box in layout.boxes}
    for ribbon in layout.ribbons:
        x, upper, lower = ribbon.stations[-1]
        if round(x, 6) in edges:
            arrived = [box for box in layout.boxes if abs(box.x - x) < TOLERANCE]
            assert any(box.y - TOLERANCE <= upper and lower <= box.y + box.height + TOLERANCE for box in arrived)


@given(trees())
@settings(max_examples=60)
def test_a_tree_has_no_crossings(repository: Repository) -> None:
    graph = graph_of(repository)
    assert count_crossings(graph, find_order(graph)) == 0


@pytest.mark.slow
@given(families())
@settings(max_examples=60)
def test_every_column_keeps_its_nodes_and_every_node_its_streams(repository: Repository) -> None:
    graph = graph_of(repository)
    order = find_order(graph)
    assert [sorted(column) for column in order.columns] == graph.columns
    assert all(sorted(order.streams[index]) == list(range(node.ports)) for index, node in enumerate(graph.nodes))
    assert make_layout(repository) == make_layout(repository)


def test_the_demos_merges_cross_but_once() -> None:
    graph = graph_of(DEMO)
    assert count_crossings(graph, find_order(graph)) <= 1


@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(0.1, 9), st.floats(0, 9), st.floats(0.1, 9)), min_size=1, max_size=9))
def test_spread_keeps_order_and_room(wishes: list[tuple[float, float, float, float]]) -> None:
    rooms = [Room(above, below) for _, _, above, below in wishes]
    places = spread([wish for wish, *_ in wishes], [weight for _, weight, *_ in wishes], rooms, 200.0)
    for (above, upper), (below, lower) in pairwise(zip(places, rooms, strict=True)):
        assert below - above >= upper.below + lower.above - TOLERANCE
    assert places[0] - rooms[0].above >= -TOLERANCE
    assert places[-1] + rooms[-1].below <= 200 + TOLERANCE
    assert spread(places, [1.0] * len(places), rooms, 200.0) == pytest.approx(places)


def test_spread_gives_the_mean_to_those_who_want_the_same_place() -> None:
    assert spread([50, 50], [1, 1], [Room(5, 5)] * 2, 100) == pytest.approx([45, 55])
    assert spread([50, 50], [3, 1], [Room(5, 5)] * 2, 100) == pytest.approx([47.5, 57.5])


@given(st.text(max_size=60), st.integers(1, 30))
def test_shortened_names_fit_and_can_be_written(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short.isprintable()
    if len(text) > limit:
        assert short[: limit // 2] == shorten(text[: limit // 2], limit)


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize(
    "text", ["layer2.0\N{EN DASH}layer4.1", "task-number-17", "size-class", "UINT8 224 \N{MULTIPLICATION SIGN} 3", "MOBILENET_V3"]
)
def test_words_are_no_wider_than_estimated(text: str, bold: bool) -> None:
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    assert 0.8 < TextPath((0, 0), text, size=10, prop=font).get_extents().width / text_width(text, 10, bold) < 1.06


def test_modules_are_named_by_the_first_and_the_last() -> None:
    plain = segment("s", 3, 1)
    assert module_range(replace(plain, modules=("conv1", "bn1", "layer1.0")), 20) == "conv1\N{EN DASH}layer1.0"
    assert module_range(replace(plain, modules=()), 20) == "block 3"
    assert len(module_range(replace(plain, modules=("a" * 30, "b" * 30)), 20)) <= 20


@pytest.mark.parametrize("unit", [MACS, WEIGHTS])
def test_shares_are_of_all_that_a_request_costs(unit: str) -> None:
    """A link passes a column on its way to the head, and a segment runs twice."""
    repository = family([(0, 1, 1), (0, 1, 2)], [10**6, 10**6, 2 * 10**6], siamese=[0])
    again = repository.tasks["task-1"]
    first, second = again.steps[:2]
    twice = Step(second.segment, second.outputs, ("again",))
    third = replace(again.steps[2], inputs=("again",))
    tasks = {**repository.tasks, "task-1": replace(again, steps=(first, second, twice, third, *again.steps[3:]))}
    repository = replace(repository, tasks=tasks)
    layout = make_layout(repository, unit)
    cost = shared_cost(repository, list(tasks))
    total = cost.macs if unit == MACS else cost.weight_bytes
    boxes = [box for box in layout.boxes if box.segment == "b0v0"]
    assert [box.cost for box in boxes] == [repository.segments["b0v0"].macs * (1 if unit == MACS else 3) + 8 * (unit == WEIGHTS)]
    assert any(text.text.endswith(f" {100 * boxes[0].cost / total:.0f} %") for text in layout.texts)
    assert len(layout.boxes) == len(make_flow(repository).runs)


def test_the_headline_says_what_sharing_saves() -> None:
    repository = family([(0, 0), (0, 1)], [4_000_000, 2_000_000])
    assert headline(repository) == "2 tasks: 10.0 MMACs instead of 14.0 MMACs (1.4x less), 30.0 MB instead of 42.0 MB (1.4x less)"
    assert headline(family([(0,)], [4_000_000])) == "1 task: 4.0 MMACs, 12.0 MB of weights"
    assert "(no less)" in headline(family([(0,), (1,)], [4_000_000]))


def two_inputs() -> Repository:
    """Return tasks whose head takes a second input of the network."""
    repository = family([(0, 0), (0, 1)], [40, 20], siamese=[0, 1])
    tasks: dict[str, Task] = {}
    for name, task in repository.tasks.items():
        head = task.steps[-1]
        steps = (*task.steps[:-1], replace(head, inputs=(AGE.name, head.inputs[1])))
        tasks[name] = replace(task, steps=steps, inputs=(*task.inputs, AGE))
    return replace(repository, tasks=tasks)


def test_every_input_of_the_network_is_named_on_the_left() -> None:
    layout = make_layout(two_inputs())
    texts = {text.text: text for text in layout.texts}
    first = min(box.x for box in layout.boxes)
    assert texts["image"].x < first
    assert texts["age"].x < first
    assert abs(texts["image"].y - texts["age"].y) > LINE_HEIGHT


@pytest.mark.parametrize("number", [1, 2, 32])
def test_the_picture_grows_with_the_number_of_tasks(number: int) -> None:
    layout = make_layout(family([(0, 0, index) for index in range(number)], [900, 50, 100]))
    assert len(layout.ends) == number
    assert 200 < layout.height < 200 + 40 * max(number, 12)
    assert sum(text.size == LABEL_SIZE and text.paint.startswith(ON) for text in layout.texts) > 0
