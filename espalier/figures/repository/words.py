"""The words at the tree: at its segments, its inputs and its outputs."""

from __future__ import annotations

from contract.repository.unite import united_inputs
from espalier.figures.repository.graph import INPUT, OUTPUT
from espalier.figures.repository.parts import BOX_WIDTH, INPUT_WIDTH, Parts
from espalier.figures.repository.shapes import DIM, INK, ON, Rectangle, Text
from espalier.figures.repository.text import LABEL_SIZE, LINE_HEIGHT, NAME_SIZE, describe_tensor, output_detail
from espalier.figures.text import shorten, text_width

PAD = 7.0
_NAME_CHARACTERS = 28


def input_lines(name: str, tensor: str) -> tuple[str, str]:
    """Return the two lines that stand at an input."""
    return shorten(name, 18), shorten(tensor, 22)


def run_texts(parts: Parts) -> list[Text]:
    """Return the labels of all segments, in their boxes or above them."""
    texts = []
    for index, label in parts.labels.items():
        x, upper, thickness = parts.left(index), parts.upper[index], parts.sizes.thickness[index]
        name = parts.graph.nodes[index].name
        middle = upper + thickness / 2 if label.inside else upper - label.height_above / 2 - 0.5
        for number, line in enumerate(label.lines):
            y = middle + LINE_HEIGHT * (number - (len(label.lines) - 1) / 2)
            if label.inside:
                paint = ON + parts.paint(index)
                texts.append(Text(x + BOX_WIDTH / 2, y, line, LABEL_SIZE, paint, anchor="center", segment=name))
            else:
                texts.append(Text(x, y, line, LABEL_SIZE, INK, segment=name))
    return texts


def input_parts(parts: Parts) -> tuple[list[Rectangle], list[Text]]:
    """Return a bar and two lines for each input."""
    specs = {spec.name: spec for spec in united_inputs(parts.repository.tasks.values()) or ()}
    bars, texts = [], []
    for index, node in enumerate(parts.graph.nodes):
        if node.kind == INPUT:
            upper, thickness = parts.upper[index], parts.sizes.thickness[index]
            bars.append(Rectangle(parts.left(index), upper, INPUT_WIDTH, thickness, INK))
            name, tensor = input_lines(node.name, describe_tensor(specs[node.name]))
            x, y = parts.left(index) - PAD, upper + thickness / 2
            texts.append(Text(x, y - LINE_HEIGHT / 2 - 1, name, NAME_SIZE, INK, bold=True, anchor="right"))
            texts.append(Text(x, y + LINE_HEIGHT / 2 + 1, tensor, LABEL_SIZE, DIM, anchor="right"))
    return bars, texts


def output_names(parts: Parts) -> dict[str, Text]:
    """Return the name of each output, shortened, by the name itself."""
    return {
        node.name: Text(
            parts.left(index) + PAD,
            parts.upper[index] + parts.sizes.thickness[index] / 2,
            shorten(node.name, _NAME_CHARACTERS),
            NAME_SIZE,
            INK,
            bold=True,
        )
        for index, node in enumerate(parts.graph.nodes)
        if node.kind == OUTPUT
    }


def output_details(parts: Parts, ends: dict[str, Text]) -> list[Text]:
    """Return the labels or shapes of the outputs, in a column beside the names."""
    x = max(end.x + text_width(end.text, end.size, end.bold) for end in ends.values()) + 2 * PAD
    return [Text(x, end.y, output_detail(parts.repository, name), LABEL_SIZE, DIM) for name, end in ends.items()]
