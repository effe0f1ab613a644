from __future__ import annotations

from dataclasses import replace

import pytest

from tests.espalier.figures.ledgers.ledgers import RESNET18, Fake, cost_of, greedy, make_header, profile, without
from tuning.errors import BadOptions
from tuning.search.greedy import StopRule, select
from tuning.search.ledger import LedgerContents
from tuning.search.replay import MissingCosts, MissingScores, noted_selections, replay, searched_blocks
from tuning.search.score import Objective

HEADER = make_header(RESNET18, folds=3)
ANY = StopRule(-1.0, max_blocks=2)


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_replay_is_the_selection_that_was_made(siamese: bool, direction: str) -> None:
    contents = greedy(make_header(RESNET18, folds=3, siamese=siamese), direction)  # type: ignore[arg-type]
    (noted,) = noted_selections(contents)
    assert replay(contents, direction, noted.rule, noted.objective) == noted.selection  # type: ignore[arg-type]
    assert searched_blocks(contents) == RESNET18


def test_another_rule_is_answered_without_a_score_that_is_not_there() -> None:
    contents = greedy(HEADER, rule=StopRule(-1.0))
    fake = Fake(HEADER)
    for epsilon in (0.0, 0.01, 0.05, 1.0):
        rule = StopRule(epsilon)
        by_hand = select("forward", RESNET18, lambda subsets: {s: fake.score(s) for s in subsets}, rule)
        assert replay(contents, "forward", rule, Objective()) == by_hand


def test_missing_scores_are_named_but_not_all_of_them() -> None:
    with pytest.raises(MissingScores, match=r"how layer1\.0, layer1\.1 scored") as caught:
        replay(LedgerContents(HEADER, Fake(HEADER).trials([(), *((n,) for n in RESNET18[:2])])), "forward", ANY, Objective())
    assert "run tune greedy" in str(caught.value)
    with pytest.raises(MissingScores, match=r"how the 8 blocks layer1\.0, layer1\.1, layer2\.0, layer2\.1, \.\.\. scored"):
        replay(profile(HEADER), "backward", ANY, Objective())
    with pytest.raises(MissingScores, match="how the head alone scored"):
        replay(without(profile(HEADER), ()), "forward", ANY, Objective())


def test_missing_costs_are_another_sentence() -> None:
    with pytest.raises(MissingCosts, match="what it costs to serve the head alone; run tune greedy"):
        replay(profile(HEADER), "forward", ANY, Objective(macs_weight=0.1))
    contents = greedy(HEADER, objective=Objective(0.1))
    unmeasured = {subset: replace(cost, latency_ms=None) for subset, cost in contents.costs.items()}
    with pytest.raises(MissingCosts, match="how long it takes to serve the head alone"):
        replay(replace(contents, costs=unmeasured), "forward", ANY, Objective(latency_budget_ms=3.0))


def test_a_budget_keeps_to_late_blocks_and_one_that_nothing_meets_is_refused() -> None:
    contents = greedy(HEADER, rule=StopRule(-1.0), objective=Objective(latency_budget_ms=3.0))
    found = replay(contents, "forward", StopRule(-1.0), Objective(latency_budget_ms=3.0))
    assert set(found.chosen.subset) == set(RESNET18[-2:])
    assert cost_of(HEADER, found.chosen.subset).latency_ms == 2.5
    with pytest.raises(BadOptions, match=r"Even the head alone adds 0\.50 ms, more than the budget of 0\.1 ms"):
        replay(contents, "forward", ANY, Objective(latency_budget_ms=0.1))


@pytest.mark.parametrize("damage", [{"chosen": ["layer9.9"]}, {"steps": None}, {"rule": {"epsilons": 1}}])
def test_a_note_that_the_ledger_does_not_bear_out_is_refused(damage: dict[str, object]) -> None:
    contents = greedy(HEADER)
    note = {"selection": {**contents.notes[0]["selection"], **damage}}
    with pytest.raises(BadOptions, match="A selection that the ledger notes cannot be read"):
        noted_selections(replace(contents, notes=(note,)))
    assert noted_selections(replace(contents, notes=({"remark": 1},))) == ()
