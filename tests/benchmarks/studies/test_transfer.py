from __future__ import annotations

import pytest

from benchmarks.studies.transfer import Outcome, StudyNetwork, TransferSetting, TransferStudy, describe, measure
from tuning.transfer.compare import Spread
from tuning.transfer.training import TransferOptions
from tuning.transfer.weights import TeacherWeights

TINY = TransferSetting(
    train_images=12,
    teacher=StudyNetwork("resnet18", {"channels": [8, 8, 8, 8], "stem_width": 8}, 1),
    student=StudyNetwork("resnet18", {"channels": [4, 4, 4, 4], "stem_width": 4}, 1),
    betas=(3.0,),
    seeds=2,
    options=TransferOptions(steps=2, batch_size=12),
)


@pytest.mark.slow
def test_every_method_is_measured_with_every_seed() -> None:
    measured = measure(TINY)
    assert [(one.method, one.beta) for one in measured.outcomes] == [("plain", 0.0), ("aft", 3.0), ("distillation", 3.0)]
    assert all(0 <= one.test_accuracy.mean <= 1 for one in measured.outcomes)
    assert [list(one.weights) for one in measured.outcomes] == [[], ["digits", "noise"], []]
    assert 0 <= measured.teacher_accuracy <= 1


def test_the_table_says_what_was_measured() -> None:
    weights = {"digits": TeacherWeights(8, 0.7, (0.0, 0.5, 0.7, 0.8, 1.0), 0.75, 0.9, 0.5)}
    outcome = Outcome("aft", 3.0, Spread(0.9713, 0.0042), Spread(1.0, 0.0), weights)
    text = describe(TransferStudy(TINY, 0.99, (outcome,)))
    assert "97.1 ± 0.4 %" in text
    assert "digits 0.70 (50% -> 90%)" in text
    assert "12 training images, 2 seeds, 2 steps" in text
