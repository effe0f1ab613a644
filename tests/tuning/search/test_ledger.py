from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.errors import CannotWrite
from tuning.search.ledger import BadLedger, BlockFacts, Header, LedgerInUse, LedgerMismatch, Trial, open_ledger, read_ledger
from tuning.search.score import SubsetCost

HEADER = Header(
    backbone="timm/resnet18 {}",
    weights="a1",
    weights_sha256="ab" * 32,
    data="digits:parity",
    data_sha256="cd" * 32,
    train_images=100,
    classes=2,
    folds=3,
    seed=0,
    training={"epochs": 2, "lr": None},
    blocks=(BlockFacts("layer1.0", 10, 100), BlockFacts("layer1.1", 20, 200)),
    macs=400,
)
TRIAL = Trial("subtuning", ("layer1.0",), 0, 0, 66, 0.5, 0.7, 2, 1e-3, 0.25, 1000)
COST = SubsetCost(100, 40, 0.25, 0.5, None, "layer1.0")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "l.jsonl", HEADER) as ledger:
        ledger.add(TRIAL)
        ledger.add_cost(("layer1.0",), COST)
        ledger.note({"selection": {"chosen": []}})
        written = ledger.contents
    read = read_ledger(tmp_path / "l.jsonl")
    assert read == written
    assert read.header == HEADER
    assert read.trials == (TRIAL,)
    assert read.costs == {("layer1.0",): COST}


def test_a_second_opening_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with open_ledger(path, HEADER) as ledger:
        ledger.add(TRIAL)
    with open_ledger(path, HEADER) as ledger:
        assert ledger.find(TRIAL.key) == TRIAL
        assert ledger.find(replace(TRIAL, fold=1).key) is None
        ledger.add(replace(TRIAL, fold=1, score=0.7))
    score = read_ledger(path).scores()[("layer1.0",)]
    assert score.folds == (0.5, 0.7)
    assert not score.complete


@given(cut=st.integers(0, 10_000))
def test_a_file_cut_off_anywhere_after_the_header_is_usable(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "l.jsonl"
    with open_ledger(path, HEADER) as ledger:
        for fold in range(3):
            ledger.add(replace(TRIAL, fold=fold))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + cut % (len(whole) - first)])
    kept = len(read_ledger(path).trials)
    with open_ledger(path, HEADER) as ledger:
        assert len(ledger.contents.trials) == kept
        ledger.add(replace(TRIAL, fold=2, score=0.25))
    assert read_ledger(path).trials[-1].score == 0.25


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights_sha256": "ef" * 32}, "of another backbone: it has timm/resnet18 {} with weights abababababab"),
        ({"data_sha256": "ef" * 32, "data": "digits:angle"}, "of another data set: it has digits:parity (100 training images"),
        ({"folds": 5}, "of another split: it has 3 folds of seed 0, this search has 5 folds of seed 0"),
        ({"training": {"epochs": 3, "lr": None}}, "of another training: it has epochs 2, this search has epochs 3"),
    ],
)
def test_a_ledger_of_another_search_is_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    path = tmp_path / "l.jsonl"
    with open_ledger(path, HEADER):
        pass
    before = path.read_bytes()
    with pytest.raises(LedgerMismatch) as error, open_ledger(path, replace(HEADER, **changed)):  # type: ignore[arg-type]
        pass
    assert words in str(error.value)
    assert path.read_bytes() == before


def _hold(path: Path, held: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with open_ledger(path, HEADER):
        held.set()
        done.wait(30)


@pytest.mark.slow
def test_two_searches_cannot_write_one_ledger(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "l.jsonl", held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(LedgerInUse, match="Another search is writing"), open_ledger(tmp_path / "l.jsonl", HEADER):
            pass
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize("content", ["", "{}\n", "PNG\n", json.dumps({"format": "espalier-ledger/1", "header": {"x": 1}})])
def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text(content)
    with pytest.raises(BadLedger, match=r"l\.jsonl: .*\.$"):
        read_ledger(path)


def test_a_foreign_file_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")
    with pytest.raises(BadLedger), open_ledger(path, HEADER):
        pass
    assert path.read_text() == "my notes\n"


def test_a_ledger_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="does not exist"), open_ledger(tmp_path / "no" / "l.jsonl", HEADER):
        pass


def test_reading_a_missing_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadLedger, match="cannot be read"):
        read_ledger(tmp_path / "none.jsonl")
