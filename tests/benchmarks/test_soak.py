from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.soak import Sample, growth_percent, main, measure
from benchmarks.soak_requests import make_cases
from benchmarks.tiny import TASKS, write_tiny_family
from serving.repository import Repository


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
    rising = [Sample(number, 100 + max(0, 20 - number)) for number in range(100)]  # falls to 100 while it warms up
    assert growth_percent(rising, 100) == 0
    leaking = [Sample(number, 1000 + number) for number in range(100)]
    # The medians of 20 .. 27 and 92 .. 99.
    assert growth_percent(leaking, 100) == pytest.approx(100 * (1095.5 - 1023.5) / 1023.5)


def test_cases_are_named_apart_and_half_of_them_are_good(repository: Repository) -> None:
    cases = make_cases(repository)
    assert max(Counter(case.name for case in cases).values()) == 1
    good = sum(case.share for case in cases if case.statuses & {200, "OK"})  # type: ignore[operator]
    assert 0.4 < good / sum(case.share for case in cases) < 0.7


@pytest.mark.slow
def test_a_short_soak_meets_every_case_and_every_answer_is_right(repository: Repository) -> None:
    soak = measure(repository, 1500, clients=3)
    assert soak.wrong == ()
    assert sum(sum(statuses.values()) for statuses in soak.answers.values()) == 1500
    assert all(soak.answers.values())
    assert soak.samples[-1].requests == 1500
    assert min(sample.resident_bytes for sample in soak.samples) > 20e6


@pytest.mark.slow
def test_the_command_says_what_grew(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--requests", "200", "--clients", "2", "--limit", "50", "--json", str(tmp_path / "soak.json")]
    monkeypatch.setattr(sys, "argv", ["soak", str(repository.path), *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "wrong answers: 0" in capsys.readouterr().out
    assert (tmp_path / "soak.json").stat().st_size > 1000
