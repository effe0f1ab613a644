"""The picture of a repository as data: where every box, ribbon and word goes. Pure; `svg.py` and `draw.py` beside it draw it."""

from __future__ import annotations

from dataclasses import replace

from contract.repository import Repository
from contract.repository.unite import united_inputs
from espalier.figures.repository.flow import make_flow
from espalier.figures.repository.frame import MARGIN, Frame, Subject, make_frame
from espalier.figures.repository.graph import INPUT, OUTPUT, RUN, Graph, make_graph
from espalier.figures.repository.order import Order, find_order
from espalier.figures.repository.parts import BOX_WIDTH, INPUT_WIDTH, Parts
from espalier.figures.repository.place import Room, find_places
from espalier.figures.repository.shapes import Box, Layout, Ribbon
from espalier.figures.repository.sizes import ROW_HEIGHT, FigureSizes, find_sizes, run_cost
from espalier.figures.repository.text import MACS, NAME_SIZE, RunLabel, describe_tensor, label_run
from espalier.figures.repository.words import PAD, input_lines, input_parts, output_details, output_names, run_texts
from espalier.figures.text import text_width

_GAP, _WIDEST_GAP = 32.0, 90.0  # between columns: wider in a small tree, so that it fills the width of the headline
_USUAL_WIDTH = 840.0
_SPACE = 9.0  # between what is beneath each other


def make_layout(repository: Repository, unit: str = MACS) -> Layout:
    """Return the picture of a request for all tasks, where thickness is cost: MACs or the bytes of weights, as `unit` says."""
    flow = make_flow(repository)
    owners = {spec.name: task.name for task in repository.tasks.values() for spec in task.outputs}
    graph = make_graph(flow, repository.segments, owners)
    costs = tuple(run_cost(node.run, repository.segments, unit) if node.run else 0 for node in graph.nodes)
    order = find_order(graph)
    sizes = find_sizes(graph, order, costs)
    labels = _labels(repository, graph, costs, sizes, unit)
    upper, height = find_places(graph, order, sizes, _rooms(graph, sizes, labels))
    lefts = _lefts(repository, graph, _GAP)
    parts = Parts(repository, graph, costs, sizes, upper, labels, lefts, _task_numbers(graph, order, owners))
    gap = _GAP + (_USUAL_WIDTH - _right(parts)) / (len(lefts) - 1)
    parts = replace(parts, lefts=_lefts(repository, graph, min(max(gap, _GAP), _WIDEST_GAP)))
    used = [parts.paint(node) for node in labels]
    thin = any(costs[node] * sizes.scale < sizes.thickness[node] * 0.999 for node in labels)
    subject = Subject(repository, flow, unit, sizes.scale, parts.task_paint)
    frame = make_frame(subject, used, thin, _right(parts), height)
    return _assemble(parts, frame)


def _labels(repository: Repository, graph: Graph, costs: tuple[int, ...], sizes: FigureSizes, unit: str) -> dict[int, RunLabel]:
    runs = [index for index, node in enumerate(graph.nodes) if node.kind == RUN]
    total = sum({index if unit == MACS else graph.nodes[index].name: costs[index] for index in runs}.values())
    return {
        index: label_run(
            repository.segments[graph.nodes[index].name],
            graph.nodes[index].ports,
            costs[index],
            total,
            unit,
            sizes.thickness[index],
            BOX_WIDTH,
        )
        for index in runs
    }


def _right(parts: Parts) -> float:
    ends = output_names(parts)
    return max(text.x + text_width(text.text, text.size, text.bold) for text in (*ends.values(), *output_details(parts, ends)))


def _assemble(parts: Parts, frame: Frame) -> Layout:
    down = frame.top
    ends = output_names(parts)
    details = output_details(parts, ends)
    bars, input_texts = input_parts(parts)
    boxes = tuple(replace(box, y=box.y + down) for box in _boxes(parts))
    ribbons = tuple(
        replace(ribbon, stations=tuple((x, upper + down, lower + down) for x, upper, lower in ribbon.stations))
        for ribbon in _ribbons(parts)
    )
    texts = [*run_texts(parts), *input_texts, *details]
    return Layout(
        frame.width,
        frame.height,
        parts.sizes.scale,
        boxes,
        ribbons,
        (*(replace(item, y=item.y + down) for item in bars), *frame.rectangles),
        (*(replace(text, y=text.y + down) for text in texts), *frame.texts),
        {name: replace(text, y=text.y + down) for name, text in ends.items()},
        frame.title,
    )


def _rooms(graph: Graph, sizes: FigureSizes, labels: dict[int, RunLabel]) -> list[Room]:
    rooms = []
    for index, node in enumerate(graph.nodes):
        thickness = sizes.thickness[index]
        if node.kind in (OUTPUT, INPUT):
            margin = max(ROW_HEIGHT * (1 if node.kind == OUTPUT else 1.6) - thickness, 0.0) / 2
            rooms.append(Room(margin, thickness + margin))
        else:
            above = labels[index].height_above if node.kind == RUN else 0.0
            rooms.append(Room(above + _SPACE / 2, thickness + _SPACE / 2))
    return rooms


def _lefts(repository: Repository, graph: Graph, gap: float) -> tuple[float, ...]:
    """Return where the columns begin; the first begins where the inputs' words end."""
    lines = [
        line for spec in united_inputs(repository.tasks.values()) or () for line in input_lines(spec.name, describe_tensor(spec))
    ]
    left = MARGIN + max(text_width(line, NAME_SIZE, bold=True) for line in lines) + PAD + INPUT_WIDTH
    step = BOX_WIDTH + gap
    return (left, *(left + gap + step * column for column in range(len(graph.columns) - 1)))


def _task_numbers(graph: Graph, order: Order, owners: dict[str, str]) -> dict[str, int]:
    """Number the tasks from top to bottom, so that neighbours get different colours."""
    names = [owners[graph.nodes[node].name] for node in order.columns[-1] if graph.nodes[node].kind == OUTPUT]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _boxes(parts: Parts) -> list[Box]:
    return [
        Box(
            parts.left(index),
            parts.upper[index],
            BOX_WIDTH,
            parts.sizes.thickness[index],
            parts.paint(index),
            node.name,
            parts.costs[index],
            node.ports,
        )
        for index, node in enumerate(parts.graph.nodes)
        if node.kind == RUN
    ]


def _ribbons(parts: Parts) -> list[Ribbon]:
    ribbons = []
    for link, leaving, attached in zip(parts.graph.links, parts.sizes.leaving, parts.sizes.attached, strict=True):
        start, *_, end = [port.node for port in link.ports]
        upper = parts.upper[start]
        stations = [(parts.right(start), upper + leaving[0], upper + leaving[1])]
        for port, (first, last) in zip(link.ports[1:], attached, strict=True):
            upper = parts.upper[port.node]
            stations.append((parts.left(port.node), upper + first, upper + last))
            if port.node != end:
                stations.append((parts.right(port.node), upper + first, upper + last))
        if len(link.tasks) == 1:
            paint = parts.task_paint(min(link.tasks))
        else:
            paint = parts.paint(end if parts.graph.nodes[start].kind == INPUT else start)
        ribbons.append(Ribbon(tuple(stations), paint, link.tasks))
    return ribbons
