"""Free sizes of a file: their limits are those at which it runs, and what cannot be is refused with its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, numpy_helper

from contract.repository.free_sizes import FreeSize
from exporter.errors import ExportError
from exporter.graph.free.sizes import axes_of, free_sizes
from exporter.graph.network import make_chain
from exporter.sources.assumed import assumed
from exporter.sources.free_sizes import settle_free_sizes
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import canonical_form

_HEAD = "m = MatMul(x, w) out = ReduceMean <keepdims = 0> (m, one)"


def network(tmp_path: Path, body: str, inputs: str = "int64[batch, length] ids", out: str = "batch, 2") -> Path:
    """Write a network with a table of 9 words and one of 20 places; `x` is to be (batch, length, 3)."""
    text = f"""<ir_version: 9, opset_import: ["": 18]> net ({inputs}) => (float[{out}] out)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64 scalar = {{0}}, int64[1] far = {{999}},
        int64 step = {{1}}> {{ {body} }}"""
    model: ModelProto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    shapes = {"words": (9, 3), "places": (20, 3), "added": (1, 20, 3), "w": (3, 2), "kernel": (2, 3, 3, 3)}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
        if name in used
    )
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def settled(path: Path, **wanted: int) -> tuple[dict[str, FreeSize], tuple[str, ...]]:
    model = load_onnx(path)
    settle_free_sizes("net", model, path, wanted)
    return free_sizes(model), assumed(model)


_LENGTH = "s = Shape(ids) length = Slice(s, one, two) e = Gather(words, ids)"
_POSITIONS = {
    "a slice that is added": f"{_LENGTH} p = Slice(added, zero, length, one) x = Add(e, p)",
    "a slice that is looked up": f"{_LENGTH} l = Squeeze(length) r = Range(scalar, l, step) p = Gather(places, r) x = Add(e, p)",
    "positions from the ids": """e = Gather(words, ids) zeros = Mul(ids, zero) ones = Add(zeros, one) axis = Identity(one)
        from_one = CumSum(ones, axis) from_zero = Sub(from_one, one) p = Gather(places, from_zero) x = Add(e, p)""",
}


@pytest.mark.parametrize("positions", _POSITIONS)
def test_the_end_of_a_table_of_positions_is_found(tmp_path: Path, positions: str) -> None:
    path = network(tmp_path, f"{_POSITIONS[positions]} {_HEAD}")
    sizes, said = settled(path)
    assert sizes == {"length": FreeSize(20, 1, 20)}
    assert said == ("leaves 'length' free (1 to 20); costs are stated for 20.",)
    assert settled(path, length=7)[0] == {"length": FreeSize(7, 1, 20)}


def test_where_there_is_no_limit_it_is_said_how_far_was_looked(tmp_path: Path) -> None:
    sizes, (sentence,) = settled(network(tmp_path, f"x = Gather(words, ids) {_HEAD}"))
    assert sizes == {"length": FreeSize(128, 1, None)}
    assert sentence == "leaves 'length' free (1 upward, no limit was found up to 8192); costs are stated for 128."


def test_an_image_has_the_least_size_that_a_convolution_without_padding_takes(tmp_path: Path) -> None:
    path = network(
        tmp_path, "c = Conv(image, kernel) out = GlobalMaxPool(c)", "float[batch, 3, height, 40] image", "batch, 2, 1, 1"
    )
    sizes, _ = settled(path)
    assert sizes == {"height": FreeSize(224, 3, None)}


_ENLARGED = {
    # a pyramid whose smallest map is enlarged and added to a larger one; the sizes of the maps are rounded up, or down
    "4": ("h = MaxPool <kernel_shape = [1, 4], strides = [1, 4]> (image)", 1, "image"),
    "14": ("h = MaxPool <kernel_shape = [1, 14], strides = [1, 14]> (image)", 1, "image"),
    "8 and 1 more": (
        """c = MaxPool <kernel_shape = [1, 2], strides = [1, 2]> (image)
        h = MaxPool <kernel_shape = [1, 4], strides = [1, 4]> (c)""",
        2,
        "c",
    ),
    "8 from 7": (
        """c = MaxPool <kernel_shape = [1, 1], strides = [1, 2]> (image)
        h = MaxPool <kernel_shape = [1, 1], strides = [1, 4]> (c)""",
        2,
        "c",
    ),
}


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("4", FreeSize(224, 4, None, 4)),
        ("14", FreeSize(224, 14, None, 14)),
        ("8 and 1 more", FreeSize(224, 8, None, 8, 2)),
        ("8 from 7", FreeSize(224, 7, None, 8, 2)),
    ],
)
def test_sizes_that_run_in_steps_are_known_and_said(tmp_path: Path, steps: str, found: FreeSize) -> None:
    made, halved, larger = _ENLARGED[steps]
    body = f"""{made} u = Concat <axis = 3> ({", ".join(["h"] * (found.step // halved))}) s = Add(u, {larger})
        out = GlobalMaxPool(s)"""
    path = network(tmp_path, body, "float[batch, 3, 40, width] image", "batch, 3, 1, 1")
    sizes, (sentence,) = settled(path)
    assert sizes["width"] == found
    assert f"in steps of {found.step}" in sentence
    assert ("and up to 1 more" in sentence) == (found.window > 1)
    asked = found.least + found.step
    assert settled(path, width=asked)[0] == {"width": replace(found, reference=asked)}


def test_an_axis_without_a_name_gets_one_and_a_name_that_is_none_becomes_one(tmp_path: Path) -> None:
    path = network(tmp_path, f"x = Gather(words, ids) {_HEAD}")
    model = onnx.load(path)
    for name, called in ((None, "ids_1"), ("a length + 1", "a_length___1"), ("class", "size_class")):
        dim = model.graph.input[0].type.tensor_type.shape.dim[1]
        dim.Clear()
        if name:
            dim.dim_param = name
        onnx.save(model, path)
        sizes, said = settled(path)
        assert [*sizes] == [called]
        assert any(called in sentence for sentence in said)


def test_axes_that_run_only_together_are_one(tmp_path: Path) -> None:
    body = f"e = Gather(words, ids) t = Gather(words, types) x = Add(e, t) {_HEAD}"
    path = network(tmp_path, body, "int64[batch, length] ids, int64[batch, types_length] types")
    model = load_onnx(path)
    settle_free_sizes("net", model, path)
    assert [axes_of(value) for value in model.graph.inputs] == [("length",), ("length",)]
    assert any(
        "runs only where 'length' and 'types_length' are equal; both are called 'length'" in line for line in assumed(model)
    )


def test_axes_that_may_differ_stay_two(tmp_path: Path) -> None:
    body = """e = Gather(words, ids) t = Gather(words, types) q = ReduceMean <keepdims = 0> (t, one) a = MatMul(e, w)
        p = ReduceMean <keepdims = 0> (a, one) r = MatMul(q, w) out = Add(p, r)"""
    sizes, _ = settled(network(tmp_path, body, "int64[batch, length] ids, int64[batch, other] types"))
    assert [*sizes] == ["length", "other"]


@pytest.mark.parametrize(
    ("body", "inputs", "sentence"),
    [
        (
            f"x = Gather(words, ids) {_HEAD}",
            "int64[1, length] ids",
            "leaves 'length' free and fixes the batch size to 1; export it with a dynamic first dimension",
        ),
        (
            f"x = Gather(words, ids) {_HEAD}",
            "int64[batch, batch] ids",
            r"a size other than the batch size is fixed, or has a name",
        ),
        (
            "z = NonZero(ids) c = Cast <to = 1> (z) t = Transpose <perm = [1, 0]> (c) m = MatMul(ids2, w) out = Concat <axis = 0> (t, m)",
            "int64[batch, length] ids, float[batch, 3] ids2",
            "must have the batch size as their first dimension and nowhere else|no shape can be found behind",
        ),
        (
            f"f = Add(ids, far) x = Gather(words, f) {_HEAD}",
            "int64[batch, length] ids",
            "has free sizes, and could not be run with length from 128 down to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, body: str, inputs: str, sentence: str) -> None:
    path = network(tmp_path, body, inputs)
    with pytest.raises(ExportError, match=sentence):
        make_chain("net", canonical_form("net", load_onnx(path), path))
