"""Segments merged into one model give what they give alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serving.engines.onnxruntime.bundle_session import BundleSession, open_bundle
from serving.engines.onnxruntime.merged_model import NotMergeable, merge
from serving.engines.onnxruntime.session import PROVIDERS, open_session, run_session, session_options
from serving.engines.sessions.runtime import BundleFile, SegmentFile
from serving.errors import CannotBundle
from tests.serving.heads import FORMS, WIDTH, Head, write_heads

HEADS = st.lists(st.builds(Head, st.just("h"), st.integers(1, 40), st.sampled_from(FORMS)), min_size=1, max_size=12)


def opened(model: onnx.ModelProto):
    return open_session(model.SerializeToString(), session_options(threads=1), PROVIDERS)


@settings(max_examples=25, deadline=None)
@given(heads=HEADS, rows=st.integers(1, 5), seed=st.integers(0, 99))
def test_merged_segments_give_what_each_gives_alone(heads: list[Head], rows: int, seed: int) -> None:
    models = [Head(f"h{number}", head.classes, head.form).model() for number, head in enumerate(heads)]
    merged = merge(models)
    tap = [np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)]
    found = BundleSession(opened(merged.model), merged.places).run(tap)
    for model, result in zip(models, found, strict=True):
        (alone,) = run_session(opened(model), tap)
        np.testing.assert_allclose(result, alone, rtol=1e-6, atol=1e-6)  # here to the bit, which other processors need not do
        assert result.flags.c_contiguous


def test_linear_layers_of_one_form_are_one_product() -> None:
    merged = merge([Head(f"h{number}", number + 1, "gemm-transposed").model() for number in range(9)])
    assert [node.op_type for node in merged.model.graph.node] == ["Gemm"]
    assert list(merged.model.graph.initializer[0].dims) == [sum(range(1, 10)), WIDTH]


def per_token(classes: int, *, add: bool) -> onnx.ModelProto:
    """A product over the last axis of rows of tokens."""
    model = Head(f"tokens-{classes}", classes, "matmul-add" if add else "matmul").model()
    for value in (model.graph.input[0], model.graph.output[0]):
        size = value.type.tensor_type.shape.dim[1].dim_value
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["rows", 5, size]))
    return model


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("add", [True, False])
def test_heads_of_each_token_are_one_product_too(add: bool, rows: int) -> None:
    models = [per_token(classes, add=add) for classes in (2, 3, 4)]
    merged = merge(models)
    assert [node.op_type for node in merged.model.graph.node] == ["MatMul", "Add"][: 1 + add]
    tokens = [np.random.default_rng(0).standard_normal((rows, 5, WIDTH)).astype(np.float32)]
    found = BundleSession(opened(merged.model), merged.places).run(tokens)
    for model, result in zip(models, found, strict=True):
        (alone,) = run_session(opened(model), tokens)
        np.testing.assert_allclose(result, alone, rtol=1e-6, atol=1e-6)
        assert result.flags.c_contiguous


def with_control_flow() -> onnx.ModelProto:
    model = Head("flow").model()
    body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    model.graph.node.append(helper.make_node("If", ["bias"], ["z"], then_branch=body, else_branch=body))
    return model


def with_other_input() -> onnx.ModelProto:
    model = Head("other").model()
    model.graph.input[0].name = "features"
    return model


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Head("old", opset=17).model(), "its opset is another one"),
        (with_control_flow(), "its graph has control flow"),
        (with_other_input(), "it takes other tensors"),
    ],
    ids=["opset", "flow", "input"],
)
def test_what_cannot_stand_beside_others_is_named(model: onnx.ModelProto, why: str) -> None:
    with pytest.raises(NotMergeable, match=why) as caught:
        merge([Head("a").model(), model])
    assert caught.value.number == 1


def test_a_bundle_that_would_answer_otherwise_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = write_heads(tmp_path, [Head("a"), Head("b", 4)])
    files = [SegmentFile(repository.segments[name], repository.model_file(name)) for name in ("a", "b")]
    bundle = BundleFile(files[0].segment, Path(), tuple(files))
    assert len(open_bundle(bundle).places) == 2

    def wrong(models: list[onnx.ModelProto]):
        merged = merge(models)
        return type(merged)(merged.model, (merged.places[0], merged.places[1]._replace(start=0, stop=4)))

    monkeypatch.setattr("serving.engines.onnxruntime.merged_model.merge", wrong)
    with pytest.raises(
        CannotBundle, match="'b' is run by itself, and not in one session with others: there it gives other answers"
    ):
        open_bundle(bundle)
