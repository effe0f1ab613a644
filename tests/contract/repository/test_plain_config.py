"""What a configuration that people wrote comes to, with what its ONNX file says: properties of all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.repository.config import ModelConfig, tensor_specs
from contract.repository.plain_config import FileTensor, Signature, check_servable, chosen_version, completed, unheeded

DTYPES = ("FP32", "INT64", "BYTES", "BOOL")
SHAPES = st.lists(st.sampled_from([-1, 1, 3]), max_size=3).map(tuple)


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    def tensors(prefix: str) -> tuple[FileTensor, ...]:
        count = draw(st.integers(1, 3))
        return tuple(FileTensor(f"{prefix}{i}", "tensor", draw(st.sampled_from(DTYPES)), draw(SHAPES)) for i in range(count))

    return Signature(tensors("x"), tensors("y"))


def tensors_of(found: Signature) -> tuple[FileTensor, ...]:
    return (*found.inputs, *found.outputs)


@given(signatures())
def test_without_a_configuration_the_file_says_all(found: Signature) -> None:
    done = completed(ModelConfig(), found)
    can_batch = all(tensor.shape[:1] == (-1,) for tensor in tensors_of(found))
    assert (done.max_batch_size, done.HasField("dynamic_batching")) == ((4, True) if can_batch else (0, False))
    messages = (*done.input, *done.output)
    for message, spec, tensor in zip(messages, tensor_specs(messages), tensors_of(found), strict=True):
        row = tensor.shape[1:] if can_batch else tensor.shape
        assert (spec.name, spec.dtype, spec.shape) == (tensor.name, tensor.dtype, row or (1,))
        assert message.HasField("reshape") == (can_batch and not row)
    assert completed(done, found) == done


@given(signatures(), st.data())
def test_whatever_is_left_out_is_put_back(found: Signature, data: st.DataObject) -> None:
    whole = completed(ModelConfig(), found)
    part = ModelConfig()
    part.CopyFrom(whole)
    for message in (*part.input, *part.output):
        for field in data.draw(st.sets(st.sampled_from(["data_type", "dims"]))):
            message.ClearField(field)
            if field == "dims":
                message.ClearField("reshape")
    for field in data.draw(st.sets(st.sampled_from(["platform", "backend", "version_policy", "input", "output"]))):
        part.ClearField(field)
    assert completed(part, found) == whole


@given(signatures(), st.data())
def test_what_contradicts_the_file_is_refused(found: Signature, data: st.DataObject) -> None:
    config = completed(ModelConfig(), found)
    message = data.draw(st.sampled_from([*config.input, *config.output]))
    how = data.draw(st.sampled_from(["type", "name", "axis", "size", "input", "rows"]))
    if how == "type":
        message.data_type = next(kind for kind in (6, 11) if kind != message.data_type)
    elif how == "name":
        message.name += "_"
    elif how == "axis":
        message.dims.extend([2, 2])
    elif how == "size":
        sizes = [index for index, size in enumerate(message.dims) if size > 0]
        if not sizes:
            return
        message.dims[sizes[0]] = 5
    elif how == "input":
        del config.input[0]
        if not config.input:
            return
    elif config.max_batch_size:
        config.max_batch_size = 0
    else:
        config.max_batch_size = 8
    with pytest.raises(RepositoryError):
        completed(config, found)


def policy(text: str) -> Any:
    from contract.repository.config import parse_text

    return parse_text(text, "test")


@pytest.mark.parametrize(
    ("text", "versions", "expected"),
    [
        ("", [1, 2, 10], 10),
        ("version_policy { latest { num_versions: 1 } }", [1, 2], 2),
        ("version_policy { latest { num_versions: 2 } }", [4], 4),
        ("version_policy { latest { num_versions: 2 } }", [3, 4], "asks for versions 3 and 4 at once"),
        ("version_policy { specific { versions: [ 1 ] } }", [1, 2], 1),
        ("version_policy { specific { versions: [ 1, 2 ] } }", [1, 2], "say specific { versions: [ 2 ] }"),
        ("version_policy { all { } }", [7], 7),
        ("version_policy { specific { versions: [ 3 ] } }", [1], "names version 3, which is not there"),
        ("version_policy { specific { } }", [1], "names no version, which is not there"),
        ("", [], "has no version folder"),
    ],
)
def test_one_version_is_chosen(text: str, versions: list[int], expected: int | str) -> None:
    if isinstance(expected, int):
        assert chosen_version(policy(text), versions) == expected
        return
    with pytest.raises(RepositoryError) as caught:
        chosen_version(policy(text), versions)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'platform: "tensorrt_plan"',
        'backend: "python"',
        'platform: "onnxruntime_onnx" backend: "openvino"',
        'name: "all_tasks"',
        "model_transaction_policy { decoupled: true }",
        'runtime: "model.py"',
        "batch_input [ { kind: BATCH_ELEMENT_COUNT } ]",
        'model_operations { op_library_filename: "lib.so" }',
        'input [ { name: "x" allow_ragged_batch: true } ]',
        'input [ { name: "x" optional: true } ]',
    ],
)
def test_what_would_answer_otherwise_is_refused(text: str) -> None:
    with pytest.raises(RepositoryError):
        check_servable(policy(text), has_model_file=True)


def test_what_is_not_heeded_is_named() -> None:
    config = policy("dynamic_batching { max_queue_delay_microseconds: 5 } model_warmup [ { name: 'w' } ] max_batch_size: 2")
    assert unheeded(config) == ("model_warmup", "dynamic_batching.max_queue_delay_microseconds")
    assert unheeded(policy("dynamic_batching { } max_batch_size: 2")) == ()
