from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.active.margin import ActiveRound, active_learning, check_sizes, compare, margins, next_rows, random_rows, summarise
from tuning.data.labelled import Split, TaskData
from tuning.errors import BadOptions
from tuning.network.backbone import Backbone
from tuning.training.loop import FitOptions
from tuning.training.methods import linear_probe, subtuning
from tuning.training.trainer import Trainer

OPTIONS = FitOptions(epochs=1, batch_size=8, lr=1e-2)


def _rows(*rows: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


def test_margins_by_hand() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.4, 0.2, 0.4], [0.0, 1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(margins(probabilities), [0.25, 0.5, 0.0, 1.0], atol=1e-7)
    assert margins(np.array([[0.25, 0.75]])).tolist() == [0.5]


def test_the_lowest_margins_are_next() -> None:
    found = np.array([0.3, 0.1, 0.2, 0.1, 0.0])
    assert next_rows(found, _rows(), 3).tolist() == [4, 1, 3]
    assert next_rows(found, _rows(4, 3), 2).tolist() == [1, 2]
    assert next_rows(found, _rows(0, 1, 2, 3, 4), 0).tolist() == []


def test_more_than_the_pool_has_is_refused() -> None:
    with pytest.raises(BadOptions, match="3 labels are asked for, but the pool has 2"):
        next_rows(np.zeros(3), _rows(1), 3)
    with pytest.raises(BadOptions, match="3 labels are asked for, but the pool has 2"):
        random_rows(3, _rows(1), 3, np.random.default_rng(0))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_no_row_is_taken_twice_and_none_left_is_lower(values: list[int], data: st.DataObject) -> None:
    found = np.array(values) / 5
    taken = np.array(data.draw(st.lists(st.sampled_from(range(len(values))), unique=True)), dtype=np.int64)
    count = data.draw(st.integers(0, len(values) - len(taken)))
    for rows in (next_rows(found, taken, count), random_rows(len(values), taken, count, np.random.default_rng(0))):
        assert rows.dtype == np.int64
        assert len(set(rows.tolist())) == count
        assert not set(rows.tolist()) & set(taken.tolist())
    left = set(range(len(values))) - set(taken.tolist())
    chosen = set(next_rows(found, taken, count).tolist())
    assert all(found[row] <= found[other] for row in chosen for other in left - chosen)


@pytest.mark.parametrize("sizes", [(), (1, 2), (4, 4), (8, 4)])
def test_sizes_rise(sizes: tuple[int, ...]) -> None:
    with pytest.raises(BadOptions, match="rising from at least 2"):
        check_sizes(sizes, 100)


def test_a_pool_that_is_too_small_is_refused_before_training() -> None:
    with pytest.raises(BadOptions, match="500 labels are asked for, but the pool has 24"):
        check_sizes((100, 400, 500), 24)


def test_a_summary_has_means_and_deviations_over_seeds() -> None:
    rounds = {
        "margin": [(ActiveRound(2, (0, 1), 0.25, 1.0),), (ActiveRound(2, (3, 1), 0.75, 2.0),)],
        "random": [(ActiveRound(2, (0, 1), 0.5, 1.0),)],
    }
    found = summarise(rounds)
    assert found["margin"] == [
        {
            "labels": 2,
            "mean": 0.5,
            "deviation": pytest.approx(0.125**0.5),
            "test_accuracy": [0.25, 0.75],
            "seconds": [1.0, 2.0],
            "rows": [[0, 1], [3, 1]],
        }
    ]
    assert found["random"][0]["deviation"] == 0.0


def _without_seconds(rounds: tuple[ActiveRound, ...]) -> list[ActiveRound]:
    return [replace(r, seconds=0.0) for r in rounds]


def _trainer(backbone: Backbone, data: TaskData) -> Trainer:
    return Trainer(backbone, data, OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["margin", "random"])
def test_rounds_grow_and_repeat(strategy: str) -> None:
    backbone, data = tiny_vit(), tiny_data()
    method = subtuning(("blocks.2",), 1)
    trainer = _trainer(backbone, data)
    first = active_learning(trainer, method, (6, 10, 16), 1, strategy)
    assert [r.labels for r in first] == [6, 10, 16]
    for before, after in itertools.pairwise(first):
        assert after.rows[: before.labels] == before.rows
    assert all(len(set(r.rows)) == r.labels for r in first)
    assert _without_seconds(active_learning(trainer, method, (6, 10, 16), 1, strategy)) == _without_seconds(first)
    fresh = active_learning(_trainer(backbone, data), method, (6, 10, 16), 1, strategy)
    assert _without_seconds(fresh) == _without_seconds(first)
    assert active_learning(trainer, method, (6, 10, 16), 2, strategy)[-1].rows != first[-1].rows


@pytest.mark.slow
def test_strategies_begin_alike_and_rounds_start_from_the_pretrained_weights() -> None:
    trainer, method = _trainer(tiny_resnet(), tiny_data()), linear_probe(1)
    told: list[tuple[int, int]] = []
    found = compare(trainer, method, (6, 12), (0, 1), on_round=lambda done, total: told.append((done, total)))
    assert [rounds[0].rows for rounds in found["margin"]] == [rounds[0].rows for rounds in found["random"]]
    assert told == [(done, 8) for done in range(1, 9)]
    last = found["margin"][1][1]
    direct = trainer.run(trainer.prepare(method, 1), np.array(last.rows), 1)
    assert trainer.score(direct) == last.test_accuracy


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["margin", "random"])
def test_labels_that_were_not_asked_for_have_no_influence(strategy: str) -> None:
    backbone, data = tiny_vit(), tiny_data()
    method, start = subtuning(("blocks.2",), 1), np.arange(6)
    rounds = active_learning(_trainer(backbone, data), method, (6, 10, 14), 0, strategy, first=start)
    asked = list(rounds[-1].rows)
    hidden = np.setdiff1d(np.arange(24), asked)
    targets = data.train.targets.copy()
    targets[hidden] = (targets[hidden] + 1) % 3
    other = replace(data, train=Split(data.train.images, targets))
    again = active_learning(_trainer(backbone, other), method, (6, 10, 14), 0, strategy, first=start)
    assert _without_seconds(again) == _without_seconds(rounds)
    revealed = data.train.targets.copy()
    revealed[:6] = (revealed[:6] + 1) % 3
    learnt = active_learning(
        _trainer(backbone, replace(data, train=Split(data.train.images, revealed))), method, (6, 10, 14), 0, "margin", first=start
    )
    assert learnt[-1].rows != active_learning(_trainer(backbone, data), method, (6, 10, 14), 0, "margin", first=start)[-1].rows


@pytest.mark.slow
def test_the_first_rows_are_as_many_as_the_first_size() -> None:
    with pytest.raises(BadOptions, match="first round has 6 labels, but 4 rows"):
        active_learning(_trainer(tiny_vit(), tiny_data()), linear_probe(1), (6, 8), 0, "margin", first=np.arange(4))
