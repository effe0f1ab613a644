"""An operator is told by what it means, not by the opset that its file names."""

from __future__ import annotations

import pytest
from onnx import defs

from exporter.graph.definitions import defaults_of, version_of


@pytest.mark.parametrize(
    ("operator", "same", "other"),
    [
        ("Relu", [7, 13, 14, 18, 21], []),
        ("Reshape", [7, 13, 14, 19, 21], []),
        ("Conv", [7, 11, 21], []),
        ("MaxPool", [8, 10, 12, 18], []),
        ("BatchNormalization", [14, 15, 21], [7, 9]),
        ("LayerNormalization", [17, 18, 21], []),
        ("Gemm", [7, 9, 11, 13, 21], []),
        ("Cast", [9, 13, 19, 21], []),
        ("Resize", [13, 18, 19, 21], [10]),
        ("Squeeze", [13, 21], [11]),
        ("Unsqueeze", [13, 21], [11]),
        ("Clip", [11, 12, 13], [7]),
        ("Pad", [11, 13, 18, 19, 21], [7]),
        ("Split", [13, 18, 21], [11]),
        ("ReduceMean", [18, 21], [11, 13]),
        ("ReduceSum", [13, 21], [11]),
        ("ReduceMax", [18, 20, 21], [13]),
        ("Softmax", [13, 21], [11]),
        ("AveragePool", [7, 10, 11, 18, 19, 21], []),
        ("GroupNormalization", [18, 20], [21]),
        ("GridSample", [16, 18], [20]),
        ("RoiAlign", [10, 15], [16, 21]),
    ],
)
def test_a_later_version_that_only_takes_more_is_the_same_operator(operator: str, same: list[int], other: list[int]) -> None:
    (version,) = {version_of("", operator, opset) for opset in same}
    assert version_of("ai.onnx", operator, same[0]) == version
    assert version not in {version_of("", operator, opset) for opset in other}


def test_a_version_may_differ_by_one_attribute_alone() -> None:
    assert version_of("", "AveragePool", 18, ["ceil_mode"]) != version_of("", "AveragePool", 19, ["ceil_mode"])
    assert version_of("", "AveragePool", 18, ["kernel_shape"]) == version_of("", "AveragePool", 19, ["kernel_shape"])


@pytest.mark.parametrize("opset", range(7, 22))
def test_no_operator_counts_by_a_later_version_than_its_own(opset: int) -> None:
    for operator in {schema.name for schema in defs.get_all_schemas()}:
        if defs.has(operator, opset):
            assert 1 <= version_of("", operator, opset) <= defs.get_schema(operator, opset).since_version


def test_of_other_domains_onnx_knows_its_own_alone() -> None:
    assert version_of("ai.onnx.ml", "Scaler", 1) == version_of("ai.onnx.ml", "Scaler", 3) == 1
    assert version_of("com.microsoft", "FusedConv", 1) == 1
    assert version_of("my.domain", "Conv", 21) == 21


def test_defaults_are_those_of_the_opset() -> None:
    assert defaults_of("", "Softmax", 11)["axis"].value == 1
    assert defaults_of("ai.onnx", "Softmax", 13)["axis"].value == -1
    assert "dilations" not in defaults_of("", "AveragePool", 21)
    assert defaults_of("my.domain", "Softmax", 13) == {}
