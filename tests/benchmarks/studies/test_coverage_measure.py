from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.studies.coverage import measure
from benchmarks.studies.coverage.networks import list_families, random_network, smallest_variant, tune
from benchmarks.studies.coverage.report import why_wrong
from benchmarks.studies.coverage.traces import traced
from tuning.network.blocks import find_head, is_under

pytestmark = pytest.mark.slow
NAME = "test_resnet"  # timm's own, small enough for a test


def test_a_family_is_measured_from_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "smallest_variant", lambda family: NAME)
    measurement = measure.FamilyMeasurement("resnet", tmp_path)
    measurement.run()
    record = measurement.record
    assert why_wrong(record.to_json()) == ""
    assert record.blocks > record.made_fork > 0
    assert record.macs_ratio == pytest.approx(1, abs=0.01)
    monkeypatch.delattr("benchmarks.studies.coverage.traces.trace")
    kept = traced(torch.nn.Identity(), record.size, NAME, tmp_path)
    assert kept.model is not None
    assert round(kept.seconds, 2) == record.seconds["trace"]


def test_one_variant_of_every_family_is_chosen_always_the_same() -> None:
    assert len(list_families()) > 90
    assert smallest_variant("vgg") == smallest_variant("vgg") == "vgg11"
    assert smallest_variant("convnext").startswith("convnext")


def test_tuning_changes_one_block_and_the_head_only() -> None:
    network, _, _ = random_network(NAME)
    tuned = tune(network, seed=3)
    before, after = network.state_dict(), tuned.network.state_dict()
    head = find_head(network)
    changed = {name for name in before if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])}
    assert any(is_under(name, head) for name in changed)
    assert any(is_under(name, (tuned.module,)) for name in changed)
    assert all(is_under(name, (tuned.module, *head)) for name in changed)
    assert tune(network, seed=3).module == tuned.module


def test_a_random_network_answers_differently_to_different_images() -> None:
    network, size, _ = random_network(NAME)
    with torch.inference_mode():
        answers = network(torch.randn(4, 3, size, size) + torch.arange(4).reshape(4, 1, 1, 1))
    assert float((answers.std(0) / answers.abs().mean(0)).max()) > 0.1
