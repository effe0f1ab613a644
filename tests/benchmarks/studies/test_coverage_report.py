from __future__ import annotations

from typing import Any

import pytest

from benchmarks.studies.coverage.measure import scaled_error
from benchmarks.studies.coverage.report import make_report, sum_up, why_wrong

RIGHT: dict[str, Any] = {
    "family": "resnet",
    "variant": "resnet10t",
    "parameters": 5.4,
    "size": 176,
    "exportable": True,
    "reason": "",
    "blocks": 8,
    "largest_block": 0.2,
    "found_fork": 4,
    "made_fork": 4,
    "macs_before": 0.49,
    "weights_before": 0.02,
    "errors": {"1": 0.0, "3": 2e-7, "8": 3e-6},
    "torch_error": 4e-6,
    "macs_ratio": 1.0,
    "uncounted": ["Relu"],
    "seconds": {"trace": 3, "bind": 1, "canonical": 0.1, "chains": 0.1, "write": 1},
    "peak_gb": 1.2,
}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"found_fork": 3}, "it is after 4"),
        ({"errors": {"1": 0.0, "8": 2e-5}}, "2.0e-05 of the spread"),
        ({"errors": {"1": float("nan")}}, "inf"),
        ({"errors": {}}, "inf"),
        ({"torch_error": 0.5}, "from torch"),
        ({"torch_error": float("nan")}, "from torch"),
        ({"reason": "MemoryError: "}, "MemoryError"),
    ],
)
def test_what_is_wrong_is_said_and_counted(change: dict[str, Any], word: str) -> None:
    wrong = {**RIGHT, "family": "other", **change}
    assert word in why_wrong(wrong)
    assert not why_wrong(RIGHT)
    assert sum_up([RIGHT, wrong]).right == 1
    section = make_report([RIGHT, wrong], "").split("## Not right")[1].split("##")[0]
    assert "other" in section
    assert word in section


def test_what_torch_cannot_export_is_listed_apart_and_does_not_count() -> None:
    refused = {"family": "hopeless", "variant": "hopeless_s", "exportable": False, "reason": "data-dependent shape"}
    totals = sum_up([RIGHT, refused])
    assert (totals.families, totals.exportable, totals.right, totals.share) == (2, 1, 1, 1.0)
    assert "hopeless (`hopeless_s`): data-dependent shape" in make_report([RIGHT, refused], "").split("## What torch cannot")[1]


def test_a_network_with_hardly_a_cut_is_called_coarse_and_a_miscount_listed() -> None:
    report = make_report([{**RIGHT, "blocks": 2, "largest_block": 0.9, "macs_ratio": 0.8}], "timm 1.0")
    assert "2 blocks, the largest with 90% of the MACs" in report
    assert "0.800 of torch's; uncounted: Relu" in report
    assert "MACs within 1 % of torch's: 0" in report


def test_an_error_is_scaled_by_the_spread_over_rows() -> None:
    import numpy as np

    rows = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert scaled_error(np.array([[0.5, 1.0]]), rows[:1], rows) == 0.5
    assert np.isnan(scaled_error(rows[:1], rows[:1], rows[:1]))
