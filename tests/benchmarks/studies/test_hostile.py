"""What attacks take, at a small size; `python -m benchmarks.studies.hostile` has the whole."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.hostile.__main__ import line_of, main
from benchmarks.studies.hostile.attack import PER_ANSWER_BYTE, PER_BODY_BYTE, PER_PIXEL, PER_TEXT_BYTE, Attack, promised
from benchmarks.studies.hostile.attacks import attacks
from benchmarks.studies.hostile.measure import Target, watched
from contract.repository import Repository

ROOT = Path(__file__).parents[3]
SCALE = 0.04


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_tiny_family(tmp_path_factory.mktemp("tiny") / "repository")


@pytest.fixture(scope="module")
def target(repository: Repository) -> Iterator[Target]:
    with watched(repository) as target:
        yield target


def test_the_documents_promise_what_is_checked() -> None:
    table = (ROOT / "docs" / "reference" / "limits.md").read_text().split("## Memory of a request")[1].split("\n## ")[0]
    found = dict(re.findall(r"^\| ([a-z]+) \| (\d+) for each", table, re.MULTILINE))
    assert found == {
        "body": str(PER_BODY_BYTE),
        "text": str(PER_TEXT_BYTE),
        "picture": str(PER_PIXEL),
        "answer": str(PER_ANSWER_BYTE),
    }


def test_a_promise_is_the_largest_of_its_parts_and_the_answer() -> None:
    assert promised(body=10, text=2, answer=5) == 3 * 10 + 3 * 5
    assert promised(body=10, text=20) == 8 * 20
    assert promised(body=10, pixels=100) == 12 * 100 + 3 * 10


def test_attacks_are_named_apart(repository: Repository) -> None:
    names = [attack.name for attack in attacks(repository, 0.002)]
    assert len(names) == len(set(names)) > 90


@pytest.mark.slow
def test_every_attack_ends_as_it_should_within_what_is_promised(repository: Repository, target: Target) -> None:
    effects = [target.play(attack) for attack in attacks(repository, SCALE)]
    assert [line_of(effect) for effect in effects if effect.faults] == []


@pytest.mark.slow
def test_what_is_not_as_promised_is_seen(target: Target) -> None:
    async def nothing(server: object) -> str:
        await asyncio.sleep(0.1)
        return "ended"

    async def large(server: object) -> str:
        """Have the server hold a picture of 25 million pixels, and promise nothing for it."""
        return await next(attack for attack in attacks_of(target) if attack.name == "picture, PNG").play(target.server)

    assert target.play(Attack("nothing", nothing, frozenset(("ended",)), 0)).faults == ()
    (ended,) = target.play(Attack("nothing", nothing, frozenset(("200",)), 0)).faults
    assert "it ended with ended; right is 200" in ended
    (took,) = target.play(Attack("large", large, frozenset(("200",)), 0)).faults
    assert "promised are 0" in took


def attacks_of(target: Target) -> Iterator[Attack]:
    from benchmarks.studies.hostile.image_attacks import image_attacks

    return image_attacks(5000)


@pytest.mark.slow
def test_the_command_shows_a_line_for_each(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--scale", "0.01", "--only", "a long URL,two lengths", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["hostile", str(repository.path), *options])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "a long URL" in shown
    assert "NOT AS PROMISED" not in shown
    assert (tmp_path / "found.json").stat().st_size > 300
