"""Searches and comparisons of labels and values go by the metric of the kind, and their ledgers say which."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tests.tuning.kinds.drawn import drawn, one_value
from tuning.errors import BadData
from tuning.kinds.metric import ACCURACY, AVERAGE_PRECISION
from tuning.search.compare import Comparison, compare
from tuning.search.greedy import StopRule
from tuning.search.ledger import LedgerMismatch, read_ledger
from tuning.search.replay import noted_selections, replay
from tuning.search.score import Objective
from tuning.search.search import SearchOptions, open_search
from tuning.training.loop import FitOptions

pytestmark = pytest.mark.slow

OPTIONS = FitOptions(epochs=2, batch_size=12, lr=1e-2, device="cpu")
SEARCH = SearchOptions(folds=3, blocks=("layer1.0", "layer4.0", "layer4.1"), workers=1)


def test_a_search_of_a_value_chooses_the_smallest_error(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_search(tiny_resnet(), one_value(48), OPTIONS, SEARCH, path) as search:
        found = search.select("forward", StopRule(-99.0, max_blocks=1), Objective())
    contents = read_ledger(path)
    assert (contents.header.kind, contents.header.metric.heading) == ("values", "mean absolute error, mm")
    singles = {subset: score for subset, score in contents.scores().items() if len(subset) == 1 and score.complete}
    assert found.chosen.subset == min(singles, key=lambda subset: singles[subset].mean)
    assert found.chosen.value == -found.chosen.score.mean
    assert replay(contents, "forward", StopRule(-99.0, max_blocks=1), Objective()).chosen == found.chosen
    assert noted_selections(contents)[0].selection == found


def test_ledgers_say_the_metric_and_those_of_classes_are_as_they_were(tmp_path: Path) -> None:
    some = replace(SEARCH, blocks=("layer4.1",))
    for name, data in (("labels", drawn(Labels(), 48)), ("values", drawn(Values(("mm",)), 48)), ("classes", tiny_data())):
        with open_search(tiny_resnet(), data, OPTIONS, some, tmp_path / name) as search:
            search.profile()
    first = {
        name: [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("labels", "values", "classes")
    }
    assert first["labels"][0]["header"]["metric"]["name"] == "mean_average_precision"
    assert first["values"][0]["header"]["metric"]["unit"] == "standard deviations"  # of two values in any units
    assert not first["classes"][0]["header"].keys() & {"metric", "kind"}
    assert 0 < first["labels"][1]["trial"]["mean_average_precision"] <= 1
    assert 0 < first["values"][1]["trial"]["mean_absolute_error"] < 3
    assert "accuracy" in first["classes"][1]["trial"]
    assert read_ledger(tmp_path / "labels").header.metric == AVERAGE_PRECISION
    assert read_ledger(tmp_path / "classes").header.metric == ACCURACY
    both = drawn(Labels(), 48)
    other = replace(both, kind=Values())
    with (
        pytest.raises(LedgerMismatch, match="another kind of task: it has labels scored by mean average precision, %, this"),
        open_search(tiny_resnet(), other, OPTIONS, some, tmp_path / "labels"),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "methods"), [(Labels(), ("linear probe", "subtuning")), (Values(), ("siamese subtuning", "lp-ft"))]
)
def test_methods_are_compared(tmp_path: Path, kind: Kind, methods: tuple[str, ...]) -> None:
    comparison = Comparison(methods, sizes=(24,), seeds=(0,), lrs=(1e-2,), folds=2, blocks=("blocks.2",), workers=1)
    done = compare(tiny_vit(), drawn(kind, 48), OPTIONS, comparison, tmp_path / "l.jsonl")
    assert [trial.method for trial in done] == list(methods)
    assert all(np.isfinite(trial.score) and trial.train_images == 24 for trial in done)


def test_the_fixed_validation_split_is_what_is_scored_on(tmp_path: Path) -> None:
    data = drawn(Labels(), 48)
    fixed = replace(data, validation=np.arange(20, 36, dtype=np.int64))
    with open_search(tiny_resnet(), fixed, OPTIONS, replace(SEARCH, blocks=("layer4.1",)), tmp_path / "l.jsonl") as search:
        scores = search.profile()
    assert [(score.of, len(score.folds)) for score in scores.values()] == [(1, 1)] * 2
    assert {trial.train_images for trial in read_ledger(tmp_path / "l.jsonl").trials} == {20}


def test_a_label_too_rare_for_the_folds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    data = drawn(Labels(), 48)
    data.train.targets[3:, 0] = 0
    with (
        pytest.raises(BadData, match=r"Label 'blue' has \d training images?, too few for 5 folds"),
        open_search(tiny_resnet(), data, OPTIONS, SearchOptions(folds=5), tmp_path / "l.jsonl"),
    ):
        pass
    assert not list(tmp_path.iterdir())
