from __future__ import annotations

import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.graph.passes.batch.sizes import Size, Sizes
from tests.exporter.graph.passes.graphs import cuts, local, operators, parse

TOKEN = (
    "float[1, 1, 4] token = {1, 2, 3, 4}, int64[2] tail = {1, 4}, int64[1] minus = {-1}, int64[1] two = {2}, int64[1] three = {3}"
)
BATCH = "batch = Shape <start = 0, end = 1> (image)"


def test_a_reshape_to_the_batch_size_of_the_image_becomes_static() -> None:
    model = local(
        parse(f"{BATCH} x = Relu(image) target = Concat <axis = 0> (batch, minus) logits = Reshape(x, target)", weights=TOKEN)
    )
    assert operators(model) == ["Relu", "Reshape"]
    assert cuts(model) == ["image", "x", "logits"]


def test_a_reshape_that_takes_the_batch_into_another_axis_becomes_static() -> None:
    body = f"{BATCH} x = Relu(image) rows = Mul(batch, three) target = Concat <axis = 0> (rows, four) y = Reshape(x, target) "
    body += "back = Concat <axis = 0> (batch, three, four) z = Reshape(y, back) logits = Relu(z)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=f"{TOKEN}, int64[1] four = {{4}}"))
    assert operators(model) == ["Relu", "Reshape", "Reshape", "Relu"]
    targets = [list(node.inputs[1].const_value.numpy()) for node in model.graph if node.op_type == "Reshape"]
    assert targets == [[-1, 4], [-1, 3, 4]]


def test_an_expand_that_changes_nothing_goes() -> None:
    body = f"{BATCH} x = Relu(image) target = Concat <axis = 0> (batch, three, four) y = Expand(x, target) logits = Relu(y)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=f"{TOKEN}, int64[1] four = {{4}}"))
    assert operators(model) == ["Relu", "Relu"]


def test_an_expand_of_data_along_other_axes_keeps_the_batch_as_it_is() -> None:
    body = f"{BATCH} x = ReduceMean <keepdims = 1> (image, two) target = Concat <axis = 0> (batch, three, five) "
    body += "logits = Expand(x, target)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=f"{TOKEN}, int64[1] five = {{5}}"))
    assert operators(model) == ["ReduceMean", "Expand"]
    assert list(model.graph[-1].inputs[1].const_value.numpy()) == [1, 1, 5]


def test_an_expand_before_a_broadcast_goes() -> None:
    body = (
        f"{BATCH} target = Concat <axis = 0> (batch, tail) x = Relu(image) tokens = Expand(token, target) logits = Add(x, tokens)"
    )
    model = local(parse(body, logits="float[batch, N, M] logits", weights=TOKEN))
    assert operators(model) == ["Relu", "Add"]


def test_an_expand_that_the_broadcast_needs_stays() -> None:
    body = f"{BATCH} target = Concat <axis = 0> (batch, two, four) x = ReduceMean <keepdims = 1> (image, one) "
    body += "tokens = Expand(token, target) logits = Add(x, tokens)"
    model = local(
        parse(body, logits="float[batch, N, M] logits", weights=f"{TOKEN}, int64[1] one = {{1}}, int64[1] four = {{4}}")
    )
    assert "Expand" in operators(model)
    (reader,) = [node for node in model.graph if node.op_type == "Shape"]
    assert reader.inputs[0].name == "x"


def test_a_class_token_takes_the_batch_size_from_what_it_is_put_in_front_of() -> None:
    body = f"{BATCH} target = Concat <axis = 0> (batch, tail) x = Relu(image) tokens = Expand(token, target) "
    body += "logits = Concat <axis = 1> (tokens, x)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=TOKEN))
    assert cuts(model) == ["image", "x", "logits"]
    (reader,) = [node for node in model.graph if node.op_type == "Shape"]
    assert reader.inputs[0].name == "x"


def test_older_operator_sets_will_do() -> None:
    body = "all = Shape(image) batch = Gather <axis = 0> (all, zero) target = Concat <axis = 0> (batch, tail) x = Relu(image) "
    body += "tokens = Expand(token, target) logits = Concat <axis = 1> (tokens, x)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=f"{TOKEN}, int64[1] zero = {{0}}", opset=13))
    assert cuts(model) == ["image", "x", "logits"]


def test_the_neighbour_may_hold_a_multiple_of_the_batch_on_a_later_axis() -> None:
    body = f"{BATCH} rows = Mul(batch, three) target = Concat <axis = 0> (four, rows) flat = Reshape(image, split) "
    body += "x = Transpose <perm = [1, 0]> (flat) noise = ConstantOfShape(target) y = Concat <axis = 0> (x, noise) "
    body += "logits = Transpose <perm = [1, 0]> (y)"
    model = local(parse(body, logits="float[N, M] logits", weights=f"{TOKEN}, int64[2] split = {{-1, 4}}, int64[1] four = {{4}}"))
    assert cuts(model) == ["image", "flat", "x", "y", "logits"]


def test_arithmetic_on_the_batch_size_of_many_steps_is_followed() -> None:
    body = "shape = Shape(image) scalar = Gather(shape, zero) last = Range(zero, scalar, one) index = Unsqueeze(last, one_axis) "
    body += "x = Relu(image) logits = GatherND(x, index)"
    weights = "int64 zero = {0}, int64 one = {1}, int64[1] one_axis = {1}"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=weights))
    assert cuts(model) == ["image", "x", "logits"]


def test_sizes_that_do_not_depend_on_the_batch_become_constants() -> None:
    body = "x = Relu(image) shape = Shape <start = 1, end = 2> (image) y = Tile(x, repeats) count = Concat <axis = 0> (minus, shape) "
    body += "logits = Reshape(y, count)"
    model = local(parse(body, logits="float[M, N] logits", weights=f"{TOKEN}, int64[3] repeats = {{1, 1, 2}}"))
    assert "Shape" not in operators(model)
    assert cuts(model) == ["image", "x", "y", "logits"]


def test_a_table_of_sizes_keeps_its_axes() -> None:
    body = "size = Shape <start = 1, end = 2> (image) table = Sub(columns, size) x = Relu(image) "
    body += "y = Gather <axis = 2> (x, table) logits = ReduceSum <keepdims = 0> (y, last)"
    weights = "int64[2, 2] columns = {3, 4, 5, 6}, int64[1] last = {3}"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=weights))
    assert operators(model) == ["Relu", "Gather", "ReduceSum"]
    assert model.graph[1].inputs[1].const_value.numpy().tolist() == [[0, 1], [2, 3]]


def test_a_table_that_depends_on_the_batch_size_is_recomputed_whole() -> None:
    body = f"{BATCH} table = Mul(columns, batch) wide = Cast <to = 1> (table) x = Relu(image) logits = MatMul(x, wide)"
    model = local(parse(body, logits="float[batch, N, M] logits", weights="int64[4, 2] columns = {0, 1, 2, 3, 4, 5, 6, 7}"))
    assert cuts(model) == ["image", "x", "logits"]


def test_nothing_changes_where_no_neighbour_knows_the_batch_size() -> None:
    body = f"{BATCH} target = Concat <axis = 0> (batch, three, four) x = ReduceSum <keepdims = 1> (image, axes) logits = Expand(x, target)"
    weights = f"{TOKEN}, int64[3] axes = {{0, 1, 2}}, int64[1] four = {{4}}"
    model = local(parse(body, logits="float[batch, N, M] logits", weights=weights))
    assert "image" in {value.name for node in model.graph if node.op_type == "Shape" for value in node.inputs}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(-3, 3), st.booleans())
def test_a_size_is_a_line_in_the_batch_size(slope: int, offset: int, scalar: bool) -> None:
    body = f"{BATCH} many = Mul(batch, slope) moved = Add(many, offset) "
    body += (
        "number = Squeeze(moved) logits = Cast <to = 1> (number)"
        if scalar
        else "number = Identity(moved) logits = Cast <to = 1> (number)"
    )
    model = parse(body, weights=f"int64[1] slope = {{{slope}}}, int64[1] offset = {{{offset}}}", logits="float[N] logits")
    sizes = Sizes(model)
    number = next(value for node in model.graph for value in node.outputs if value.name == "number")
    assert sizes.content(number) == (Size(slope, offset),)
    assert sizes.rank(number) == (0 if scalar else 1)
    assert sizes.depends_on_batch_alone(number)
    assert not sizes.depends_on_data(number)


def test_half_the_batch_size_is_no_line() -> None:
    model = parse(f"{BATCH} half = Div(batch, two) logits = Cast <to = 1> (half)", weights=TOKEN)
    half = model.graph[1].outputs[0]
    assert Sizes(model).content(half) is None


def test_random_numbers_do_not_depend_on_the_batch_size_alone() -> None:
    model = parse("x = RandomNormalLike(image) logits = Add(x, image)", logits="float[batch, N, M] logits")
    assert Sizes(model).depends_on_data(model.graph[0].outputs[0])


def test_a_second_run_changes_nothing() -> None:
    body = f"{BATCH} target = Concat <axis = 0> (batch, tail) x = Relu(image) tokens = Expand(token, target) "
    body += "logits = Concat <axis = 1> (tokens, x)"
    once = local(parse(body, logits="float[batch, N, M] logits", weights=TOKEN))
    twice = local(once)
    assert ir.to_onnx_text(once) == ir.to_onnx_text(twice)
