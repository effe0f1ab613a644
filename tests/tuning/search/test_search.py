from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.errors import BadData, BadOptions
from tuning.search.compare import Comparison, compare
from tuning.search.evaluate import TrialDiverged
from tuning.search.greedy import StopRule
from tuning.search.ledger import LedgerMismatch, read_ledger
from tuning.search.replay import MissingScores, replay
from tuning.search.score import Objective, Subset, SubsetCost
from tuning.search.search import SearchOptions, open_search
from tuning.search.workers import run_all
from tuning.training.loop import FitOptions

OPTIONS = FitOptions(epochs=2, batch_size=12, lr=1e-2)
SEARCH = SearchOptions(folds=3, workers=2)
PAIR = SearchOptions(folds=3, blocks=("blocks.0", "blocks.2"), workers=2)


def depth_cost(subset: Subset) -> SubsetCost:
    share = {(): 0.0, ("blocks.2",): 0.3}.get(subset, 1.0)
    return SubsetCost(int(1000 * share), 100, share, 0.1, 10 * share, subset[0] if subset else "head")


@pytest.mark.slow
def test_a_profile_scores_the_head_and_every_block_on_every_fold(tmp_path: Path) -> None:
    with open_search(tiny_vit(), tiny_data(), OPTIONS, SEARCH, tmp_path / "l.jsonl", cost=depth_cost) as search:
        scores = search.profile(pairs=True)
    blocks = tiny_vit().blocks
    assert set(scores) == {(), *((b,) for b in blocks), *((a, b) for a in blocks for b in blocks if a < b)}
    assert all(score.complete for score in scores.values())
    contents = read_ledger(tmp_path / "l.jsonl")
    assert contents.scores() == scores
    assert set(contents.costs) == set(scores)
    trial = next(t for t in contents.trials if t.subset == ("blocks.1",) and t.fold == 0)
    assert (trial.train_images, trial.epochs, trial.lr) == (16, 2, 1e-2)
    assert trial.seconds > 0


@pytest.mark.slow
def test_scores_do_not_depend_on_workers_or_on_kept_features(tmp_path: Path) -> None:
    def losses(name: str, options: FitOptions, workers: int) -> dict[tuple[Subset, int | None], float]:
        with open_search(tiny_vit(), tiny_data(), options, replace(PAIR, workers=workers), tmp_path / name) as search:
            search.profile()
            return {(t.subset, t.fold): t.loss for t in search.contents.trials}

    first = losses("a", OPTIONS, 1)
    assert losses("b", OPTIONS, 2) == pytest.approx(first, rel=1e-4)
    assert losses("c", replace(OPTIONS, cache_bytes=0), 2) == pytest.approx(first, rel=1e-3)


@pytest.mark.slow
def test_training_macs_are_those_of_what_runs(tmp_path: Path) -> None:
    macs = {}
    for cache in (0, 2**30):
        with open_search(tiny_vit(), tiny_data(), replace(OPTIONS, cache_bytes=cache), PAIR, tmp_path / str(cache)) as search:
            search.profile()
            macs[cache] = {t.subset: t.macs for t in search.contents.trials if t.fold == 0}
    whole = search.contents.header.macs * 16 * 2
    assert macs[2**30][("blocks.2",)] < macs[2**30][("blocks.0",)] < macs[0][("blocks.0",)]
    assert whole < macs[0][()] < 1.2 * whole  # a linear probe without kept features: the whole network forward, the head backward
    assert macs[2**30][()] < 0.01 * whole


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    path, rule = tmp_path / "l.jsonl", StopRule(0.0, max_blocks=1)
    with pytest.raises(Killed), open_search(tiny_vit(), tiny_data(), OPTIONS, PAIR, path, on_epoch=kill) as search:
        search.select("forward", rule, Objective())
    kept = read_ledger(path).trials
    assert 0 < len(kept) < 9
    with open_search(tiny_vit(), tiny_data(), OPTIONS, PAIR, path) as search:
        resumed = search.select("forward", rule, Objective())
    assert read_ledger(path).trials[: len(kept)] == kept
    with open_search(tiny_vit(), tiny_data(), OPTIONS, PAIR, tmp_path / "whole.jsonl") as search:
        whole = search.select("forward", rule, Objective())
    assert resumed.chosen.subset == whole.chosen.subset
    assert resumed.chosen.score.folds == pytest.approx(whole.chosen.score.folds)


@pytest.mark.slow
def test_racing_changes_nothing_but_the_work(tmp_path: Path) -> None:
    data, options = tiny_data(train=36), replace(OPTIONS, epochs=4)
    found = {}
    for race in (True, False):
        with open_search(tiny_resnet(), data, options, SearchOptions(3, workers=2, race=race), tmp_path / str(race)) as search:
            selection = search.select("forward", StopRule(0.0, max_blocks=1), Objective())
            found[race] = (selection.chosen.subset, selection.chosen.score, len(search.contents.trials))
    assert found[True][:2] == found[False][:2]
    assert found[True][2] <= found[False][2]


@pytest.mark.slow
def test_a_ledger_answers_other_rules_without_training(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_search(tiny_vit(), tiny_data(), OPTIONS, replace(PAIR, race=False), path, cost=depth_cost) as search:
        search.profile()
        made = search.select("forward", StopRule(-1.0), Objective())
    contents = read_ledger(path)
    for rule in (StopRule(0.5), StopRule(0.0), StopRule(0.1, "drop")):
        assert replay(contents, "forward", rule, Objective()).chosen in made.steps
    cheap = replay(contents, "forward", StopRule(0.0, max_blocks=1), Objective(macs_weight=100.0))
    assert cheap.chosen.subset == ()
    within = replay(contents, "forward", StopRule(-1.0, max_blocks=1), Objective(latency_budget_ms=5.0))
    assert within.chosen.subset == ("blocks.2",)
    assert contents.notes[0]["selection"]["chosen"] == list(made.chosen.subset)  # type: ignore[index]


@pytest.mark.slow
def test_a_replay_says_where_the_ledger_ends(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_search(tiny_vit(), tiny_data(), OPTIONS, PAIR, path) as search:
        search.profile()
    with pytest.raises(MissingScores, match=r"does not say how blocks\.0, blocks\.2 scored; run tune greedy"):
        replay(read_ledger(path), "forward", StopRule(-1.0), Objective())


@pytest.mark.slow
def test_a_budget_below_the_head_alone_is_refused(tmp_path: Path) -> None:
    dear = SubsetCost(1, 1, 1.0, 1.0, 7.5)
    with (
        pytest.raises(BadOptions, match=r"Even the head alone adds 7\.50 ms, more than the budget of 5 ms"),
        open_search(tiny_vit(), tiny_data(), OPTIONS, PAIR, tmp_path / "l", cost=lambda subset: dear) as search,
    ):
        search.select("forward", StopRule(), Objective(latency_budget_ms=5.0))


@pytest.mark.slow
def test_a_diverging_training_says_where_and_keeps_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_search(tiny_resnet(), tiny_data(), OPTIONS, SearchOptions(3, ("layer4.1",), 1), path) as search:
        search.profile()
    wild = replace(OPTIONS, lr=1e30)
    with (
        pytest.raises(
            TrialDiverged, match=r"Tuning layer4\.1, fold \d: The loss became infinite or NaN at step \d+; .* keeps the \d+"
        ),
        open_search(tiny_resnet(), tiny_data(), wild, SearchOptions(3, ("layer4.1",), 1), tmp_path / "wild.jsonl") as search,
    ):
        search.profile()
    read_ledger(tmp_path / "wild.jsonl")
    with pytest.raises(LedgerMismatch, match="of another training"), open_search(tiny_resnet(), tiny_data(), wild, SEARCH, path):
        pass


def test_too_few_images_for_the_folds_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(BadData, match=r"has 2 training images, too few for 5 folds"),
        open_search(tiny_vit(), tiny_data(train=6), OPTIONS, SearchOptions(folds=5), tmp_path / "l.jsonl"),
    ):
        pass
    assert not (tmp_path / "l.jsonl").exists()


@pytest.mark.slow
def test_a_comparison_measures_each_method_once_per_size_and_seed_and_goes_on(tmp_path: Path) -> None:
    comparison = Comparison(
        ("linear probe", "subtuning", "full finetuning", "surgical", "norm-only"),
        sizes=(9, 18),
        seeds=(0, 1),
        lrs=(1e-2,),
        folds=2,
    )
    done = compare(tiny_vit(), tiny_data(), OPTIONS, comparison, tmp_path / "l.jsonl")
    assert len(done) == 5 * 2 * 2
    assert all(trial.fold is None for trial in done)
    assert {(t.train_images, t.seed) for t in done} == {(9, 0), (9, 1), (18, 0), (18, 1)}
    assert {t.lr for t in done if t.method == "linear probe"} == {1e-1}
    assert all(len(t.subset) == 1 for t in done if t.method == "subtuning")
    before = read_ledger(tmp_path / "l.jsonl").trials
    assert compare(tiny_vit(), tiny_data(), OPTIONS, comparison, tmp_path / "l.jsonl") == done
    assert read_ledger(tmp_path / "l.jsonl").trials == before


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(BadOptions, match=r"Unknown method 'probe'; known are: subtuning, .*linear probe"):
        Comparison(("probe",))


def test_a_pool_tells_what_was_finished_before_an_error_and_raises_it() -> None:
    told: list[int] = []
    stop = threading.Event()

    def do(job: int) -> int:
        if job == 3:
            raise ValueError("three")
        return job

    with pytest.raises(ValueError, match="three"):
        run_all(range(50), do, told.append, 2, stop)
    assert stop.is_set()
    assert {0, 1, 2} <= set(told)
    assert 3 not in told
    assert len(told) == len(set(told))
