"""Units are carried out once, go on where they were stopped, and end with the budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.studies.claims import run as running
from benchmarks.studies.claims.bench import Bench
from benchmarks.studies.claims.ledgers import DamagedLedger, Ledgers
from benchmarks.studies.claims.packed import pack, unpack
from benchmarks.studies.claims.plan import Estimator, Planned, make_plan
from benchmarks.studies.claims.run import Budget, carry_out, run
from benchmarks.studies.claims.tables.document import SECTIONS, make_document
from benchmarks.studies.claims.tables.source import Source
from benchmarks.studies.claims.unit import Entry, Settings, Unit
from tests.benchmarks.studies.claims.tiny import TINY, tiny_bench
from tuning.search.ledger import read_ledger

SEARCH = Unit("search", "category", 24, 0, blocks=2)
TRIED = ("subtuning", "subtuning, one block", "siamese subtuning", "linear probe", "lp-ft", "lora")
SHORT = [
    Unit("costs"),
    SEARCH,
    replace(SEARCH, seed=1),
    *(Unit("method", "category", 24, 0, name, 2 if "subtuning" in name else 0) for name in TRIED),
    *(Unit("method", "category", 24, 1, name, 2 if "subtuning" in name else 0) for name in ("subtuning", "linear probe")),
    Unit("active", "category", 24, 0, blocks=2),
    Unit("transfer", "category", 24, 0, "plain"),
    Unit("transfer", "category", 24, 0, "aft", beta=3.0),
]


def planned(units: Sequence[Unit]) -> list[Planned]:
    return [Planned("section", unit) for unit in units]


def counted(monkeypatch: pytest.MonkeyPatch, result: Any = None) -> list[Unit]:
    """Let units do nothing; return the list of those that are carried out."""
    done: list[Unit] = []

    def measure(bench: object, unit: Unit) -> Any:
        done.append(unit)
        return result or {}

    monkeypatch.setattr(running, "_MEASURES", dict.fromkeys(("costs", "search", "method", "active", "transfer"), measure))
    return done


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Ledgers:
    """Every kind of unit, carried out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return carried_out(tiny_bench(tmp_path_factory.mktemp("claims")))
    finally:
        torch.set_num_threads(threads)


def carried_out(bench: Bench) -> Ledgers:
    said: list[str] = []
    outcome = run(bench, planned(SHORT), Budget(), said.append)
    assert outcome.failed == {}
    assert outcome.done == len(SHORT) == len(said)
    return bench.ledgers


@pytest.mark.slow
def test_every_kind_of_unit_is_carried_out_and_written_down(done: Ledgers) -> None:
    entries = {entry.unit: entry for entry in done.read().values()}
    assert set(entries) == set(SHORT)
    for entry in entries.values():
        assert entry.seconds > 0
        assert entry.processor_s > 0
        assert not entry.busy
    assert entries[Unit("costs")].result["shares"] == sorted(entries[Unit("costs")].result["shares"], reverse=True)
    found = entries[SEARCH].result
    assert {len(final["subset"]) for final in found["finals"]} >= {0, 1, 2}
    assert all(0 <= final["test"] <= 1 for final in found["finals"])
    for method in TRIED:
        unit = Unit("method", "category", 24, 0, method, 2 if "subtuning" in method else 0)
        assert entries[unit].result["final"]["trainings"] == 1
        assert entries[unit].result["choosing"]["trainings"] >= 3  # two rates and two folds, of which racing may spare one
    one, chosen = (entries[Unit("method", "category", 24, 0, name, 2)].result for name in ("subtuning, one block", "subtuning"))
    assert (len(one["subset"]), len(chosen["subset"])) == (1, 2)  # the rule takes whatever comes
    weights = entries[Unit("transfer", "category", 24, 0, "aft", beta=3.0)].result["weights"]
    assert list(weights) == ["tiny", "random"]
    active = entries[Unit("active", "category", 24, 0, blocks=2)].result
    assert active["labels"] == [24, 48]
    assert active["margin"][0] == active["random"][0]


@pytest.mark.slow
def test_tables_come_from_the_ledgers_alone(done: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("tables train nothing")

    monkeypatch.setattr(torch.nn.Module, "__call__", never)
    source = Source(done.read().values(), done.settings)
    document = make_document(source, make_plan(Settings()), 2)
    assert document.count("\n## ") == len(SECTIONS) + 1
    # 24 pictures are not the size of the document's tables, but of these:
    assert "| category | 24 | 2 |" in document
    assert "| gradients | 0.5 | none | 2 |" in document
    assert "| category | 24 | " in document
    assert "- search: category, 100 images, seed 0" in document  # what was not run


@pytest.mark.slow
def test_nothing_is_done_twice(done: Ledgers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repeated = counted(monkeypatch)
    bench = tiny_bench(tmp_path)
    bench.ledgers = done
    assert run(bench, planned(SHORT), Budget(), lambda _: None).done == 0
    assert repeated == []


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_and_counts_what_it_took(tmp_path: Path, done: Ledgers) -> None:
    bench = tiny_bench(tmp_path)
    bench.ledgers.add(next(entry for entry in done.read().values() if entry.unit.kind == "costs"))
    scratch = bench.ledgers.scratch(SEARCH, ".jsonl")
    lines = done.scratch(SEARCH, ".jsonl").read_text(encoding="utf-8").splitlines()
    scratch.write_text("\n".join(lines[:5]) + "\n" + lines[5][:20], encoding="utf-8")  # killed while it wrote
    kept = read_ledger(scratch).trials
    assert len(kept) == 4
    again = carry_out(bench, SEARCH)
    assert read_ledger(scratch).trials[:4] == kept
    expected = next(entry for entry in done.read().values() if entry.unit == SEARCH).result
    assert [row[:5] for row in again.result["ledger"]["trials"]] == [row[:5] for row in expected["ledger"]["trials"]]
    assert again.seconds > sum(trial.seconds for trial in kept)


@pytest.mark.slow
def test_a_packed_ledger_is_the_ledger(done: Ledgers) -> None:
    contents = read_ledger(done.scratch(SEARCH, ".jsonl"))
    again = unpack(json.loads(json.dumps(pack(contents))))
    assert replace(again.header, versions=contents.header.versions) == contents.header
    by_key = {trial.key: trial for trial in contents.trials}
    assert {trial.key for trial in again.trials} == by_key.keys()
    for found in again.trials:
        expected = by_key[found.key]
        assert (found.accuracy, found.macs, found.seconds) == pytest.approx(
            (expected.accuracy, expected.macs, expected.seconds), abs=1e-6
        )
    measured = {proxy.key: proxy for proxy in contents.proxies}
    assert {proxy.key for proxy in again.proxies} == measured.keys()
    for proxy in again.proxies:
        assert proxy.values["norm" if proxy.name == "gradients" else "score"] == pytest.approx(
            measured[proxy.key].values["norm" if proxy.name == "gradients" else "score"], rel=1e-4
        )


def test_a_budget_counts_what_earlier_runs_took(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = counted(monkeypatch)
    bench = tiny_bench(tmp_path)
    units = [replace(SEARCH, seed=seed) for seed in range(3)]
    bench.ledgers.add(Entry(units[0], {}, 3000.0, 3000.0, busy=False))
    said: list[str] = []
    outcome = run(bench, planned(units), Budget(1.0), said.append)  # 600 seconds are left, and a unit takes 3,000
    assert (outcome.spent, done) == (True, [])
    assert said == ["The budget of 1 hours is spent before search: category, 24 images, seed 1."]
    run(bench, planned(units[:2]), Budget(1.0, cores=2), lambda _: None)  # an hour of two cores has room for one more
    assert done == [units[1]]


def test_what_needs_a_missing_unit_is_said(tmp_path: Path) -> None:
    outcome = run(tiny_bench(tmp_path), planned([SEARCH]), Budget(), lambda _: None)
    assert outcome.failed == {SEARCH: "search: category, 24 images, seed 0 needs what is not done."}


def test_a_unit_of_another_process_is_left_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = counted(monkeypatch)
    bench = tiny_bench(tmp_path)
    other = Ledgers(bench.ledgers.folder, TINY, bench.ledgers.work)
    with other.claim(SEARCH) as free:
        assert free
        run(bench, planned([SEARCH, replace(SEARCH, seed=1)]), Budget(), lambda _: None)
    assert done == [replace(SEARCH, seed=1)]


def test_a_failing_unit_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path)
    strange = Unit("method", "category", 24, 0, "luck")
    said: list[str] = []
    outcome = run(bench, planned([strange, Unit("method", "category", 24, 0, "linear probe")]), Budget(), said.append)
    assert outcome.done == 1
    assert said[0].startswith("method: category, luck, 24 images, seed 0 failed: Unknown method 'luck'; known are: subtuning,")


def test_keys_are_made_of_all_that_decides() -> None:
    units = {SEARCH, *(replace(SEARCH, **change) for change in ({"seed": 1}, {"images": 25}, {"blocks": 1}, {"task": "skin"}))}
    keys = {unit.key(TINY) for unit in units} | {SEARCH.key(replace(TINY, epochs=3))}
    assert len(keys) == 6


def test_ledgers_keep_entries_of_other_settings_and_say_what_is_damaged(tmp_path: Path) -> None:
    first, second = (Ledgers(tmp_path / "ledgers", settings, tmp_path / "work") for settings in (TINY, replace(TINY, epochs=3)))
    entry = Entry(SEARCH, {"a": 1}, 1.0, 1.0, busy=True)
    first.add(entry)
    assert second.find(SEARCH) is None
    second.add(replace(entry, seconds=2.0))
    found = first.find(SEARCH)
    assert found == entry
    assert len(first.read()) == 2
    (file,) = (tmp_path / "ledgers").glob("*.json")
    assert list((tmp_path / "ledgers").glob(".*")) == []
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DamagedLedger, match=r"search-category\.json is no ledger of this study, or damaged"):
        first.read()


def test_the_plan_has_what_the_issue_asks_for() -> None:
    plan = [one.unit for one in make_plan(Settings())]
    searches = [unit for unit in plan if unit.kind == "search" and unit.blocks > 1]
    assert len(searches) >= 60
    assert len(plan) == len(set(plan))
    at_100 = {
        task: {u.seed for u in searches if (u.task, u.images) == (task, 100)}
        for task in ("category", "rotation", "vendor", "texture")
    }
    assert {task: len(seeds) for task, seeds in at_100.items()} == {"category": 5, "rotation": 5, "vendor": 3, "texture": 3}
    for unit in plan:  # what a unit needs comes before it
        if unit.kind in ("method", "active") and ("subtuning" in unit.method or unit.kind == "active"):
            assert plan.index(Unit("search", unit.task, unit.images, unit.seed, blocks=unit.blocks)) < plan.index(unit)


def test_estimates_follow_what_was_measured() -> None:
    guess = Estimator([])
    assert guess.seconds(SEARCH) < guess.seconds(replace(SEARCH, images=100))
    measured = Estimator(
        [Entry(replace(SEARCH, seed=7), {}, 48.0, 24.0, busy=False), Entry(replace(SEARCH, images=50), {}, 999, 50.0, busy=True)]
    )
    assert measured.seconds(SEARCH) == 48.0
    assert measured.seconds(replace(SEARCH, images=50)) == 50.0  # of the processor, as the machine was busy
    assert measured.seconds(replace(SEARCH, images=200)) == pytest.approx(200 * (2.0 + 1.0) / 2)
