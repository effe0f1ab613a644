from __future__ import annotations

import re
import sys

import pytest

from benchmarks.__main__ import main


@pytest.mark.slow
def test_a_family_is_measured_end_to_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--network", "resnet18", "--block", "layer4.1", "--tasks", "3", "--size", "32", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
    main()
    said = capsys.readouterr().out
    ratios = [float(ratio) for ratio in re.findall(r"ratio ([\d.]+)", said)]
    shared, separate = map(float, re.findall(r"(\d+) MB", said.splitlines()[-1]))
    # layer4.1 is 4.7 of ResNet-18's 37.1 MMACs at 32 pixels: three tasks cost 3 x 37.1 apart and 37.1 + 2 x 4.7 on one trunk.
    assert ratios[0] == pytest.approx(3 * 37.1 / (37.1 + 2 * 4.7), rel=0.02)
    assert shared < separate
