from __future__ import annotations

import pytest

from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graph.passes.graphs import keeps_results, parse

IMAGE, OUT = "float[batch, 4, 6, 6] image", "float[batch, 4, M, N] logits"
SCALES = "float[4] scales = {1, 1, 2, 2}"


def canonical(body: str, weights: str, out: str = OUT, opset: int = 18) -> list[tuple[str, list[str]]]:
    """The nodes of `body` in canonical form, each with the contents of the constants that it takes; the results are kept."""
    model = keeps_results(parse(body, IMAGE, out, weights, opset), canonicalise)
    return [
        (
            node.op_type,
            [str(value.const_value.numpy().tolist()) if value.const_value is not None else "-" for value in node.inputs if value],
        )
        for node in model.graph
    ]


@pytest.mark.parametrize(
    ("body", "weights", "shorter", "fewer"),
    [
        (
            "logits = Resize(image, region, scales)",
            f"float[0] region = {{}}, {SCALES}",
            "logits = Resize(image, , scales)",
            SCALES,
        ),
        (
            "logits = Resize(image, region, scales)",
            f"float[8] region = {{0, 0, 0, 0, 1, 1, 1, 1}}, {SCALES}",
            "logits = Resize(image, , scales)",
            SCALES,
        ),
        (
            "logits = Resize <axes = [2, 3]> (image, , none, sizes)",
            "float[0] none = {}, int64[2] sizes = {9, 8}",
            "logits = Resize <axes = [2, 3]> (image, , , sizes)",
            "int64[2] sizes = {9, 8}",
        ),
        (
            "logits = Pad(image, pads, zero)",
            "int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, float zero = {0}",
            "logits = Pad(image, pads)",
            "int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}",
        ),
        (
            "a, b = Split <axis = 1> (image, sizes) logits = Add(b, a)",
            "int64[2] sizes = {2, 2}",
            "a, b = Split <axis = 1, num_outputs = 2> (image) logits = Add(b, a)",
            "",
        ),
    ],
)
def test_what_says_nothing_is_left_out(body: str, weights: str, shorter: str, fewer: str) -> None:
    assert canonical(body, weights) == canonical(shorter, fewer)


@pytest.mark.parametrize(
    ("body", "weights", "inputs"),
    [
        ("logits = Pad(image, pads, one)", "int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, float one = {1}", 3),
        (
            'logits = Resize <coordinate_transformation_mode = "tf_crop_and_resize"> (image, region, scales)',
            f"float[8] region = {{0, 0, 0, 0, 1, 1, 0.5, 1}}, {SCALES}",
            3,
        ),
    ],
)
def test_what_says_something_stays(body: str, weights: str, inputs: int) -> None:
    assert len(canonical(body, weights)[0][1]) == inputs
