from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contract.units import short_count
from espalier.figures.errors import LedgerLacks, OtherBlocks
from espalier.figures.ledgers.facts import cost_facts, line_facts, macs_from_first_tuned, pair_facts, path_facts, profile_facts
from espalier.figures.ledgers.kinds import Kind, choose_kind
from espalier.figures.ledgers.words import subset_words
from tests.espalier.figures.ledgers.ledgers import (
    RESNET18,
    RESNET50,
    Fake,
    comparison,
    cost_of,
    greedy,
    make_header,
    profile,
    source,
    without,
)
from tuning.search.greedy import StopRule
from tuning.search.ledger import LedgerContents, Trial
from tuning.search.score import Objective

HEADER = make_header(RESNET18, folds=3)


def test_a_profile_has_every_block_and_names_the_best() -> None:
    (found,) = profile_facts([source(profile(HEADER))])
    fake = Fake(HEADER)
    assert tuple(found.scores) == RESNET18
    assert found.probe == fake.score(())
    assert found.best == max(RESNET18, key=lambda name: fake.score((name,)).mean)


def test_a_block_that_a_race_gave_up_is_not_the_best() -> None:
    contents = profile(HEADER)
    best = profile_facts([source(contents)])[0].best
    raced = [trial for trial in contents.trials if trial.subset != (best,) or trial.fold == 0]
    assert profile_facts([source(replace(contents, trials=tuple(raced)))])[0].best != best


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (LedgerContents(HEADER), "no linear probe .* run tune profile"),
        (without(profile(HEADER), *((name,) for name in RESNET18)), "no block that was tuned alone; run tune profile"),
        (without(profile(HEADER), ()), "no linear probe"),
        (comparison(), "a comparison of methods .*, not a search; give the ledger of tune profile or tune greedy"),
    ],
)
def test_a_ledger_without_a_profile_says_so(contents: LedgerContents, words: str) -> None:
    with pytest.raises(LedgerLacks, match=f"search.jsonl holds {words}"):
        profile_facts([source(contents)])


def test_profiles_side_by_side_need_the_same_blocks() -> None:
    with pytest.raises(OtherBlocks, match=r"a\.jsonl and b\.jsonl"):
        profile_facts([source(profile(HEADER), "a.jsonl"), source(profile(make_header(RESNET50)), "b.jsonl")])


def test_a_siamese_search_is_read_as_one() -> None:
    contents = profile(make_header(RESNET18, folds=3, siamese=True))
    assert tuple(profile_facts([source(contents)])[0].scores) == RESNET18


def test_pairs() -> None:
    blocks, scores = pair_facts(source(profile(HEADER, pairs=True)))
    assert blocks == RESNET18
    assert sum(len(subset) == 2 for subset in scores) == 8 * 7 // 2
    with pytest.raises(LedgerLacks, match="no pairs of blocks; run tune profile --pairs"):
        pair_facts(source(profile(HEADER)))


def test_the_path_is_the_last_one_noted_and_its_candidates_are_what_it_chose_from() -> None:
    contents = greedy(HEADER, rule=StopRule(-1.0, max_blocks=3))
    earlier = greedy(HEADER, rule=StopRule(-1.0, max_blocks=1))
    path = path_facts(source(replace(contents, notes=(*earlier.notes, *contents.notes))))
    assert path.noted
    assert [len(step.subset) for step in path.selection.steps] == [0, 1, 2, 3]
    # Of each step's candidates one became a step: 8 + 7 + 6 looked at. The limit ended the search before it looked at four.
    assert sorted(candidate.size for candidate in path.candidates) == [1] * 7 + [2] * 6 + [3] * 5
    assert all(c.value <= path.selection.steps[c.size].value and c.complete for c in path.candidates)


def test_a_backward_path_goes_down() -> None:
    path = path_facts(source(greedy(HEADER, "backward", StopRule(1.0))))
    assert [len(step.subset) for step in path.selection.steps] == list(range(8, -1, -1))
    assert len(path.candidates) == sum(range(1, 9)) - 8


def test_values_of_a_path_weigh_costs() -> None:
    objective = Objective(macs_weight=0.1)
    path = path_facts(source(greedy(HEADER, objective=objective)))
    fake = Fake(HEADER)
    values = {objective.value(fake.score((name,)).mean, cost_of(HEADER, (name,))) for name in RESNET18}
    assert {candidate.value for candidate in path.candidates if candidate.size == 1} < values


def test_without_a_note_the_default_rule_is_replayed() -> None:
    contents = greedy(HEADER)
    path = path_facts(source(replace(contents, notes=())))
    assert not path.noted
    assert path.selection == path_facts(source(contents)).selection
    with pytest.raises(LedgerLacks, match="no greedy selection; run tune greedy"):
        path_facts(source(profile(HEADER)))


def test_lines_are_means_over_seeds_of_what_was_scored_on_the_test_split() -> None:
    contents = comparison(seeds=2)
    lines = {line.name: line for line in line_facts(source(contents))}
    by_hand = [t.score for t in contents.trials if t.method == "subtuning" and t.train_images == 400 and t.fold is None]
    assert lines["subtuning"].mean(400) == pytest.approx(sum(by_hand) / 2)
    assert lines["subtuning"].deviation(400) == pytest.approx(abs(by_hand[0] - by_hand[1]) / 2**0.5)
    assert tuple(lines["subtuning"].accuracies) == (100, 200, 400, 800)
    assert {"lora, rank 2", "lora, rank 8"} < set(lines)
    with pytest.raises(LedgerLacks, match="no methods that are compared"):
        line_facts(source(profile(HEADER)))


def test_what_a_method_chose_does_not_split_its_line_and_the_later_of_two_counts() -> None:
    def trial(variant: str, seed: int, accuracy: float) -> Trial:
        return Trial("surgical", (), None, seed, 100, accuracy, 0.1, 10, 1e-3, 2.5, 10**12, variant)

    contents = LedgerContents(make_header(RESNET18, folds=0), (trial("a", 0, 0.1), trial("b", 1, 0.5), trial("b", 0, 0.7)))
    (line,) = line_facts(source(contents))
    assert line.name == "surgical"
    assert line.accuracies == {100: (0.7, 0.5)}


def test_cost_is_what_comes_from_the_first_tuned_block_on_unless_the_ledger_knows_better() -> None:
    counted = cost_facts(source(profile(HEADER)))
    blocks = HEADER.blocks
    assert macs_from_first_tuned(profile(HEADER), (RESNET18[6], RESNET18[7])) == blocks[6].macs + blocks[7].macs
    assert counted.macs[()] == 0
    assert counted.macs[(RESNET18[0],)] == sum(block.macs for block in blocks)
    assert not counted.measured
    known = cost_facts(source(greedy(HEADER, objective=Objective(0.05))))
    assert known.measured
    assert known.macs[()] == 20_000
    assert known.chosen in known.scores


def test_no_subset_beats_one_of_the_front() -> None:
    points = cost_facts(source(profile(HEADER, pairs=True)))
    for subset in points.front:
        for other, score in points.scores.items():
            cheaper, better = points.macs[other] <= points.macs[subset], score.mean > points.scores[subset].mean
            assert not (cheaper and better)


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ([profile(HEADER)], Kind.profile),
        ([profile(HEADER, pairs=True)], Kind.pairs),
        ([greedy(HEADER)], Kind.path),
        ([replace(greedy(HEADER), notes=())], Kind.cost),
        ([comparison()], Kind.samples),
        ([greedy(HEADER), greedy(HEADER)], Kind.profile),
        ([LedgerContents(HEADER)], Kind.profile),
    ],
)
def test_the_kind_suits_the_ledger(contents: list[LedgerContents], kind: Kind) -> None:
    assert choose_kind([source(each) for each in contents]) is kind


def test_subsets_in_words() -> None:
    assert subset_words((), RESNET50) == "head alone"
    assert subset_words(RESNET50, RESNET50) == "all 16 blocks"
    assert subset_words(("layer4.2", "layer1.0"), RESNET50) == "layer1.0, layer4.2"
    assert subset_words(("layer3.4", "layer3.5", "layer4.0"), RESNET50) == "layer3.4 \N{EN DASH} layer4.0"
    assert subset_words(RESNET50[::2], RESNET50, 3) == "layer1.0, layer1.2, layer2.1 and 5 more"
    assert [short_count(n) for n in (0, 999, 1000, 9949, 9951, 999_499, 25_600_000)] == "0,999,1.0 k,9.9 k,10 k,999 k,26 M".split(
        ","
    )


@pytest.mark.slow
def test_reading_and_drawing_ledgers_imports_no_torch() -> None:
    modules = "tuning.search.ledger, tuning.search.replay, espalier.figures.ledgers.draw, espalier.tables.ledger"
    command = [sys.executable, "-c", f"import {modules}, sys; print(*sys.modules)"]
    loaded = set(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[4]).stdout.split()
    )
    assert "matplotlib.figure" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "onnxruntime", "matplotlib.pyplot"}
