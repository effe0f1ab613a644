"""What producers write in several ways gets one form, and computes the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.graph.passes.forms.one_form import OneForm
from exporter.sources.runtime import open_session
from tests.exporter.graph.passes.graphs import keeps_results, operators, parse

IMAGE, ROWS = "float[batch, 2, 6, 6] image", "float[batch, 3, 4] image"
PADS = "int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"
KERNEL = f"float[1, 2, 3, 3] w = {{{', '.join(str(number) for number in range(18))}}}"


def one_form(
    body: str, image: str = ROWS, logits: str = "float[batch, N, M] logits", weights: str = "", opset: int = 18
) -> ir.Model:
    return keeps_results(parse(body, image, logits, weights, opset), OneForm())


@pytest.mark.parametrize(
    "body",
    [
        "e = Div(image, root) f = Erf(e) g = Add(f, one) h = Mul(image, g) logits = Mul(h, half)",
        "e = Div(image, root) f = Erf(e) g = Add(one, f) h = Mul(half, g) logits = Mul(image, h)",
        "e = Div(image, root) f = Erf(e) g = Add(f, one) h = Mul(image, half) logits = Mul(g, h)",
    ],
)
def test_gelu(body: str, tmp_path: Path) -> None:
    given = parse(body, ROWS, "float[batch, N, M] logits", "float root = {1.4142135}, float one = {1}, float half = {0.5}")
    model = keeps_results(given, OneForm(), optimised=False)  # ONNX Runtime fuses one of the forms alone
    assert sorted(operators(model)) == ["Add", "Div", "Erf", "Mul", "Mul"]
    halved, last = (node for node in model.graph if node.op_type == "Mul")
    assert {value.name for value in halved.inputs} == {"image", "half"}
    assert halved.outputs[0] in last.inputs
    assert _optimised(model, tmp_path) == ["Gelu"], "ONNX Runtime fuses what a session is given"


def _optimised(model: ir.Model, folder: Path) -> list[str]:
    """The operators that ONNX Runtime makes of `model`."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(ir.load(folder / "optimised.onnx"))


def test_a_split_is_slices_and_a_slice_of_everything_nothing() -> None:
    model = one_form("a, b = Split <axis = -1, num_outputs = 2> (image) logits = Mul(a, b)")
    assert operators(model) == ["Slice", "Slice", "Mul"]
    weights = "int64[1] zero = {0}, int64[1] end = {9223372036854775807}, int64[1] axis = {-2}, int64[1] step = {1}"
    model = one_form(
        "a = Slice(image, zero, end, axis, step) b = Relu(a) c = Slice(b, step, end, axis, step) logits = Relu(c)",
        weights=weights,
    )
    assert operators(model) == ["Relu", "Slice", "Relu"]
    starts, ends, axes = (
        value.const_value.numpy().tolist() for value in model.graph[1].inputs[1:] if value and value.const_value
    )
    assert (starts, ends, axes) == ([1], [3], [1])


def test_a_slice_backwards_stays() -> None:
    weights = "int64[1] last = {-1}, int64[1] end = {-9223372036854775808}, int64[1] axis = {1}"
    model = one_form("logits = Slice(image, last, end, axis, last)", weights=weights)
    assert len(model.graph[0].inputs) == 5


def test_padding_moves_into_the_convolution_that_alone_reads_it() -> None:
    body, logits = "p = Pad(image, pads) logits = Conv <strides = [2, 2]> (p, w)", "float[batch, 1, N, M] logits"
    model = one_form(body, IMAGE, logits, f"{PADS}, {KERNEL}")
    assert operators(model) == ["Conv"]
    assert model.graph[0].attributes.get_ints("pads") == (1, 1, 1, 1)


@pytest.mark.parametrize("pad", ['Pad <mode = "reflect"> (image, pads)', "Pad(image, pads, one)"])
def test_other_padding_stays(pad: str) -> None:
    body, logits = f"p = {pad} logits = Conv(p, w)", "float[batch, 1, N, M] logits"
    assert operators(one_form(body, IMAGE, logits, f"{PADS}, {KERNEL}, float one = {{1}}")) == ["Pad", "Conv"]


def test_padding_that_a_pooling_reads_too_stays() -> None:
    body = "p = Pad(image, pads) c = Conv(p, w) m = MaxPool <kernel_shape = [3, 3]> (p) logits = Add(c, m)"
    model = one_form(body, IMAGE, "float[batch, 2, N, M] logits", f"{PADS}, {KERNEL}")
    assert operators(model)[0] == "Pad"


def test_a_mean_over_an_image_is_a_pooling() -> None:
    model = parse("logits = ReduceMean(image, axes)", IMAGE, "float[batch, 2, N, M] logits", "int64[2] axes = {-1, -2}")
    changed = model.clone()
    OneForm()(changed)
    assert operators(changed) == ["GlobalAveragePool"]
    rows = np.random.default_rng(1).standard_normal((3, 2, 6, 6)).astype(np.float32)
    results = [open_session(network).run(None, {"image": rows})[0] for network in (model, changed)]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_a_quantised_network_keeps_its_arithmetic() -> None:
    body = "q = QuantizeLinear(image, step, zero) d = DequantizeLinear(q, step, zero) logits = ReduceMean(d, axes)"
    weights = "int64[2] axes = {2, 3}, float step = {0.1}, uint8 zero = {128}"
    model = parse(body, IMAGE, "float[batch, 2, N, M] logits", weights)
    OneForm()(model)
    assert operators(model) == ["QuantizeLinear", "DequantizeLinear", "ReduceMean"]


def test_reshapes_are_said_by_sizes_and_joined() -> None:
    weights = "int64[3] first = {0, -1, 2}, int64[2] second = {0, -1}"
    model = one_form("a = Reshape(image, first) logits = Reshape(a, second)", logits="float[batch, N] logits", weights=weights)
    assert operators(model) == ["Reshape"]
    target = model.graph[0].inputs[1]
    assert target is not None
    assert target.const_value is not None
    assert target.const_value.numpy().tolist() == [-1, 12]


def test_transposes_are_joined_but_for_a_tensor_that_can_be_cut_at() -> None:
    body = "a = Transpose <perm = [0, 2, 1]> (image) b = Transpose <perm = [0, 2, 1]> (a) logits = Relu(b)"
    assert operators(one_form(body)) == ["Relu"]
    body = "a = Transpose <perm = [1, 0, 2]> (image) b = Relu(a) c = Transpose <perm = [1, 0, 2]> (b) "
    body += "d = Transpose <perm = [1, 0, 2]> (c) e = Relu(d) logits = Transpose <perm = [1, 0, 2]> (e)"
    assert operators(one_form(body)).count("Transpose") == 4


def test_factors_of_scores_are_rounded_alike() -> None:
    body = "k = Transpose <perm = [0, 2, 1]> (image) s = MatMul(image, k) logits = Div(s, root)"
    near = np.nextafter(np.float32(2), np.float32(3))
    model = parse(body, logits="float[batch, 3, 3] logits", weights=f"float root = {{{near:.9g}}}")
    OneForm()(model)
    factor = next(node for node in model.graph if node.op_type == "Div").inputs[1]
    assert factor is not None
    assert factor.const_value is not None
    assert factor.const_value.numpy() == np.float32(2)


def test_a_factor_that_means_something_else_stays() -> None:
    body = "k = Transpose <perm = [0, 2, 1]> (image) s = MatMul(image, k) logits = Div(s, root)"
    model = one_form(body, logits="float[batch, 3, 3] logits", weights="float root = {2.001}")
    assert [value.name for value in model.graph[2].inputs] == ["s", "root"]


def test_a_batchnorm_in_training_mode_is_not_folded() -> None:
    weights = f"{KERNEL}, float[1] s = {{1}}, float[1] b = {{2}}, float[1] m = {{3}}, float[1] v = {{4}}"
    logits = "float[batch, 1, N, M] logits"
    folded = canonicalise(parse("c = Conv(image, w) logits = BatchNormalization(c, s, b, m, v)", IMAGE, logits, weights))
    assert operators(folded) == ["Conv"]
    body = "c = Conv(image, w) logits, mean, var = BatchNormalization <training_mode = 1> (c, s, b, m, v)"
    assert operators(canonicalise(parse(body, IMAGE, logits, weights))) == ["Conv", "BatchNormalization"]


def test_operands_may_change_places_where_that_changes_nothing() -> None:
    def digests(body: str) -> list[str]:
        model = canonicalise(parse(body, logits="float[batch, 3, 4] logits", weights="float[4] w = {1, 2, 3, 4}"))
        return [block.digest for block in make_chain("net", model).blocks]

    assert digests("logits = Add(image, w)") == digests("logits = Add(w, image)")
    assert digests("logits = Sub(image, w)") != digests("logits = Sub(w, image)")


def test_a_second_run_changes_nothing() -> None:
    body = "a, b = Split <axis = -1, num_outputs = 2> (image) c = Mul(a, b) logits = Flatten(c)"
    once = one_form(body, logits="float[batch, N] logits")
    text = ir.to_onnx_text(once)
    OneForm()(once)
    assert ir.to_onnx_text(once) == text
