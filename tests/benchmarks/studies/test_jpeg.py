"""The benchmark from JPEG bytes to the answer, at a size that says nothing of speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.jpeg.candidates import USED, decoders, resizers
from benchmarks.studies.jpeg.measure import STAGES, main, make_photograph
from contract.preprocessing import Preprocessing
from serving.images.decode import ImageLimits, decode_image

pytestmark = pytest.mark.slow


def test_the_ways_that_are_compared_give_rows_of_one_shape() -> None:
    data = make_photograph(60, 45)
    image = decode_image(data, ImageLimits())
    how = Preprocessing(24, 24, crop_fraction=0.875)
    assert {way().shape for way in resizers(image, how).values()} == {(24, 24, 3)}
    assert all((way().size, way().mode) == ((60, 45), "RGB") for way in decoders(data).values())
    np.testing.assert_array_equal(decoders(data)[USED](), np.asarray(image))
    np.testing.assert_array_equal(resizers(image, how)[USED](), how(image))


def test_stages_and_other_ways_are_measured_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    file = tmp_path / "jpeg.json"
    sizes = ["--width", "50", "--height", "40", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["jpeg", str(repository.path), "--task", "late", *sizes, "--json", str(file)])
    main()
    found = json.loads(file.read_text())
    assert list(found["stages"]) == list(STAGES)
    assert {timing["runs"] for timing in found["stages"].values()} == {2}
    for ways in (found["decoders"], found["resizers"]):
        assert (ways[USED]["difference"], ways[USED]["differing"]) == (0, 0.0)
    assert found["resizers"]["Pillow, reducing_gap=2"]["difference"] > 0  # a picture that is five times as large as the input
    assert "a JPEG file adds" in capsys.readouterr().out
