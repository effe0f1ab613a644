"""A ranked search, live, and what the ledger of an exhaustive one says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tuning.search.greedy import StopRule
from tuning.search.ledger import LedgerContents, read_ledger
from tuning.search.rank_replay import Effort, replay_ranked
from tuning.search.ranking import Ranking
from tuning.search.replay import MissingScores, noted_selections, replay, search_scores
from tuning.search.score import Objective, Subset
from tuning.search.search import SearchOptions, open_search
from tuning.training.loop import FitOptions

pytestmark = pytest.mark.slow

OPTIONS = FitOptions(epochs=2, batch_size=12, lr=1e-2)
SEARCH = SearchOptions(folds=2, blocks=("layer3.0", "layer3.1", "layer4.0", "layer4.1"), workers=2, race=False)
RULE = StopRule(-1.0, max_blocks=2)
RANKINGS = [Ranking("epoch"), Ranking("gradients"), Ranking("singles", halving="folds"), Ranking("epoch", halving="both")]


@pytest.fixture(scope="module")
def exhaustive(tmp_path_factory: pytest.TempPathFactory) -> LedgerContents:
    path = tmp_path_factory.mktemp("exhaustive") / "l.jsonl"
    with open_search(tiny_resnet(), tiny_data(), OPTIONS, SEARCH, path) as search:
        search.select("forward", RULE, Objective())
        search.trainings.measure_gradients()
        search.trainings.measure_epochs([s for s in search_scores(search.contents) if s])
    return read_ledger(path)


@pytest.mark.parametrize("ranking", RANKINGS, ids=lambda ranking: f"{ranking.rank}-{ranking.halving}")
def test_a_replay_says_what_the_search_does_and_takes(exhaustive: LedgerContents, tmp_path: Path, ranking: Ranking) -> None:
    told = replay_ranked(exhaustive, ranking, "forward", RULE, Objective())
    path = tmp_path / "l.jsonl"
    with open_search(tiny_resnet(), tiny_data(), OPTIONS, replace(SEARCH, ranking=ranking), path) as search:
        found = search.select("forward", RULE, Objective())
    done = read_ledger(path)
    took = Effort.of(done.trials, done.proxies)
    assert found.chosen.subset == told.selection.chosen.subset
    for step, expected in zip(found.steps, told.selection.steps, strict=True):
        assert step.score.folds == pytest.approx(expected.score.folds)
    assert (took.trainings, took.epochs, took.macs) == (told.effort.trainings, told.effort.epochs, told.effort.macs)
    assert took.trainings < replay_ranked(exhaustive, None, "forward", RULE, Objective()).effort.trainings
    (noted,) = noted_selections(done)
    assert noted.selection.chosen.subset == found.chosen.subset


def test_the_exhaustive_replay_is_the_search(exhaustive: LedgerContents) -> None:
    told = replay_ranked(exhaustive, None, "forward", RULE, Objective())
    (noted,) = noted_selections(exhaustive)
    assert told.selection.steps == noted.selection.steps
    assert told.effort.trainings == len(exhaustive.trials) == 2 * (1 + 4 + 3)
    assert told.effort.macs == sum(trial.macs for trial in exhaustive.trials)


def test_a_ranked_search_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    path, options = tmp_path / "l.jsonl", replace(SEARCH, ranking=Ranking("epoch"))
    with pytest.raises(Killed), open_search(tiny_resnet(), tiny_data(), OPTIONS, options, path, on_epoch=kill) as search:
        search.trainings.measure_epochs([("layer4.1",), ("layer4.0",), ("layer3.1",), ("layer3.0",)])
    kept = read_ledger(path).proxies
    assert 0 < len(kept) < 4
    with open_search(tiny_resnet(), tiny_data(), OPTIONS, options, path) as search:
        search.select("forward", RULE, Objective())
    contents = read_ledger(path)
    assert contents.proxies[: len(kept)] == kept
    assert len({proxy.key for proxy in contents.proxies}) == len(contents.proxies) == 4 + 3


def test_the_ledger_of_a_ranked_search_does_not_pass_for_an_exhaustive_one(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_search(tiny_resnet(), tiny_data(), OPTIONS, replace(SEARCH, ranking=Ranking("gradients")), path) as search:
        search.select("forward", StopRule(-1.0, max_blocks=1), Objective())
    with pytest.raises(MissingScores, match=r"does not say how layer\d\.\d( and \d more)? scored"):
        replay(read_ledger(path), "forward", StopRule(-1.0, max_blocks=1), Objective())


def test_proxies_are_of_one_epoch_and_of_all_blocks(exhaustive: LedgerContents) -> None:
    epochs = [proxy for proxy in exhaustive.proxies if proxy.name == "epoch"]
    (gradients,) = [proxy for proxy in exhaustive.proxies if proxy.name == "gradients"]
    by_subset: dict[Subset, int] = {t.subset: t.macs for t in exhaustive.trials if t.fold == 0}
    assert {proxy.subset for proxy in epochs} == set(by_subset) - {()}
    for proxy in epochs:
        assert (proxy.epochs, 2 * proxy.macs) == (1, by_subset[proxy.subset])
        assert proxy.seconds > 0
    assert gradients.subset == tiny_resnet().blocks
    assert {len(values) for values in gradients.values.values()} == {8}
    whole = exhaustive.header.macs * 12
    assert gradients.epochs == 3  # two of the head, one pass
    assert whole < gradients.macs < 3 * whole  # once forward, and backward to the weights and inputs of the blocks


def test_a_siamese_search_is_ranked_by_the_gradients_of_the_network(tmp_path: Path) -> None:
    options = SearchOptions(2, ("blocks.0", "blocks.2"), 2, siamese=True, ranking=Ranking("gradients"))
    with open_search(tiny_vit(), tiny_data(), OPTIONS, options, tmp_path / "l.jsonl") as search:
        found = search.select("forward", StopRule(-1.0, max_blocks=1), Objective())
    assert found.chosen.subset in {("blocks.0",), ("blocks.2",)}
    assert len([t for t in read_ledger(tmp_path / "l.jsonl").trials if t.subset]) == 2  # one of the two, on both folds
