from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.models.tiny import TASKS, write_tiny_family
from benchmarks.studies.soak.__main__ import main
from benchmarks.studies.soak.requests import good_and_bad_cases
from benchmarks.studies.soak.run import MemorySample, growth_percent, make_cases, measure
from benchmarks.studies.soak.state import Holds
from contract.repository import Repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_tiny_family(tmp_path_factory.mktemp("tiny") / "repository")


def test_the_tiny_family_shares_what_is_equal(repository: Repository) -> None:
    chains = {name: [step.segment for step in task.steps] for name, task in repository.tasks.items()}
    assert chains.keys() == TASKS.keys()
    assert chains["probe"][:3] == [chains["late"][0], chains["late"][1], chains["middle"][2]]
    assert chains["early"][1:3] == chains["probe"][1:3]
    assert len({chain[0] for chain in chains.values()}) == 2


def test_growth_is_counted_after_the_warm_up() -> None:
    rising = [MemorySample(number, 100 + max(0, 20 - number)) for number in range(100)]  # falls to 100 while it warms up
    assert growth_percent(rising, 100) == 0
    leaking = [MemorySample(number, 1000 + number) for number in range(100)]
    # The medians of 20 .. 27 and 92 .. 99.
    assert growth_percent(leaking, 100) == pytest.approx(100 * (1095.5 - 1023.5) / 1023.5)


def test_cases_are_named_apart_half_of_them_are_good_and_the_hostile_take_their_part(repository: Repository) -> None:
    cases, others = make_cases(repository, hostile=0.3), good_and_bad_cases(repository)
    assert max(Counter(case.name for case in cases).values()) == 1
    good = sum(case.share for case in others if case.statuses & {200, "OK"})  # type: ignore[operator]
    assert 0.4 < good / sum(case.share for case in others) < 0.7
    hostile = sum(case.share for case in cases if case.name.startswith("hostile"))
    assert hostile / sum(case.share for case in cases) == pytest.approx(0.3)


def test_what_is_more_than_it_was_is_said() -> None:
    before = Holds(100, 10, 5, {"waiting": 0.0})
    assert Holds(101, 9, 5, {"waiting": 0.0}).more_than(before) == []
    lines = Holds(103, 11, 6, {"waiting": 2.0}).more_than(before)
    assert [line.split()[0] for line in lines] == ["waiting", "descriptors:", "threads:", "resident:"]


@pytest.mark.slow
def test_a_short_soak_meets_every_case_and_every_answer_is_right(repository: Repository) -> None:
    soak = measure(repository, 1500, clients=3, rest_s=0)
    assert soak.wrong == ()
    assert sum(sum(statuses.values()) for statuses in soak.answers.values()) == 1500
    assert len([name for name, statuses in soak.answers.items() if statuses]) > 0.9 * len(soak.answers)
    assert soak.samples[-1].requests == 1500
    assert min(sample.resident_bytes for sample in soak.samples) > 20e6
    assert soak.loads
    assert not any(soak.after.gauges.values())


@pytest.mark.slow
def test_the_command_says_what_grew(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--requests", "200", "--clients", "2", "--limit", "50", "--rest", "0", "--json", str(tmp_path / "soak.json")]
    monkeypatch.setattr(sys, "argv", ["soak", str(repository.path), *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, 1)  # few requests: threads may begin after the warm-up
    assert "wrong answers: 0" in capsys.readouterr().out
    assert (tmp_path / "soak.json").stat().st_size > 1000
