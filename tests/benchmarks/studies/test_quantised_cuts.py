from __future__ import annotations

import pytest

from benchmarks.studies.quantised_cuts import main

pytestmark = pytest.mark.slow


def test_a_border_is_measured_in_three_places(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--network", "test_resnet", "--block", "layer4", "--size", "32", "--rounds", "3", "--threads", "1"])
    _, whole, *cut = [line.rsplit(" ms", 1) for line in capsys.readouterr().out.splitlines()]
    assert whole[0].startswith("the whole")
    crossing = {line.rsplit(None, 1)[0]: int(size.split()[0].replace(",", "")) for line, size in cut}
    assert crossing.keys() == {"as exported", "behind DequantizeLinear", "in front of QuantizeLinear"}
    assert crossing["as exported"] < crossing["behind DequantizeLinear"] == crossing["in front of QuantizeLinear"]
