"""The two benchmarks of tuning's speed, at a size that says nothing of speed: that both sides do the same work."""

from __future__ import annotations

import pytest

from benchmarks.studies import search_speed, training_speed
from tests.nets import tiny_data, tiny_resnet
from tuning.training.loop import FitOptions

OPTIONS = FitOptions(epochs=2, batch_size=8)


@pytest.mark.slow
def test_both_procedures_find_the_same() -> None:
    result = search_speed.measure(tiny_resnet(), tiny_data(), OPTIONS, folds=2, max_blocks=2)
    assert result.chosen[0] == result.chosen[1]
    assert result.largest_difference <= 0.1
    assert [stretch.name for stretch in result.stretches] == ["profile", "greedy, block 2"]
    profile = result.stretches[0]
    assert profile.trainings == profile.ours_trainings == 2 * (1 + len(tiny_resnet().blocks))
    assert result.speedup > 0


@pytest.mark.slow
def test_a_line_for_each_subset() -> None:
    backbone = tiny_resnet()
    subsets = [(), (backbone.blocks[0],), (backbone.blocks[-1],)]
    lines = training_speed.measure(backbone, training_speed.cut(tiny_data(), 8), OPTIONS, subsets, repetitions=1, workers=2)
    assert [line.subset for line in lines] == subsets
    assert all(line.straightforward_s > 0 and line.ours_s > 0 for line in lines)
