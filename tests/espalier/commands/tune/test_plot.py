"""`espalier tune plot` and `tune replay`, on ledgers of searches that never ran, and on one of a search that did."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.espalier.figures.ledgers.ledgers import RESNET18, Fake, comparison, greedy, make_header, profile, write
from tests.espalier.test_cli import espalier
from tuning.search.greedy import StopRule
from tuning.search.ledger import LedgerContents
from tuning.search.score import Objective

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

HEADER = make_header(RESNET18, folds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledgers")
    write(profile(HEADER), folder / "profile.jsonl")
    write(greedy(HEADER, rule=StopRule(-1.0, max_blocks=2), objective=Objective(0.02)), folder / "greedy.jsonl")
    write(comparison((100,), 1), folder / "compare.jsonl")
    write(LedgerContents(HEADER), folder / "empty.jsonl")
    (folder / "no-ledger.txt").write_text("hello\n")
    (folder / "folder.svg").mkdir()
    return folder


def said(words: str) -> str:
    return " ".join(words.replace("│", " ").split())


def test_plot_writes_what_the_ledger_holds_best(folder: Path, tmp_path: Path) -> None:
    run = espalier("tune", "plot", folder / "greedy.jsonl", "--out", tmp_path / "a.svg")
    assert run.returncode == 0, run.stderr
    assert f"Wrote {tmp_path / 'a.svg'}" in run.stdout
    assert "Forward selection" in (tmp_path / "a.svg").read_text()


def test_profiles_stand_side_by_side(folder: Path, tmp_path: Path) -> None:
    run = espalier("tune", "plot", folder / "greedy.jsonl", folder / "profile.jsonl", "--out", tmp_path / "a.PNG")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("profile.jsonl --out a.jpg", "must end in .svg or .png"),
        ("profile.jsonl --out missing/a.svg", "missing is not a folder"),
        ("profile.jsonl --out folder.svg", "is a folder, not a file name"),
        ("nowhere.jsonl --out a.svg", "nowhere.jsonl: cannot be read as a ledger"),
        ("no-ledger.txt --out a.svg", "no-ledger.txt: is no ledger of espalier"),
        ("profile.jsonl --kind pairs --out a.svg", "profile.jsonl holds no pairs of blocks; run tune profile --pairs."),
        ("profile.jsonl --kind samples --out a.svg", "no methods that are compared on the test split"),
        ("profile.jsonl --kind path --out a.svg", "no greedy selection; run tune greedy"),
        ("empty.jsonl --kind cost --out a.svg", "no subset of which all folds were run; run tune profile"),
        ("compare.jsonl --kind profile --out a.svg", "a comparison of methods on the test split, not a search"),
        ("greedy.jsonl profile.jsonl --kind path --out a.svg", "kind path is drawn from one ledger, not 2"),
        ("profile.jsonl --kind pie --out a.svg", "'pie' is not one of"),
    ],
)
def test_a_plot_that_cannot_be_made_is_one_sentence_and_exit_code_2(folder: Path, arguments: str, words: str) -> None:
    before = sorted(folder.rglob("*"))
    run = espalier("tune", "plot", *arguments.split(), cwd=folder)
    assert run.returncode == 2
    assert words in said(run.stderr)
    assert "Traceback" not in run.stderr
    assert sorted(folder.rglob("*")) == before


def test_a_plot_without_matplotlib_names_the_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "espalier.figures.ledgers.draw"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    run = espalier("tune", "plot", folder / "profile.jsonl", "--out", tmp_path / "a.svg")
    assert run.returncode == 2
    assert "espalier[plot]" in run.stderr
    assert espalier("tune", "replay", folder / "profile.jsonl").returncode == 0


def test_a_summary_says_what_was_done_and_found(folder: Path, tmp_path: Path) -> None:
    run = espalier("tune", "replay", folder / "greedy.jsonl", "--json", tmp_path / "a.json")
    assert run.returncode == 0, run.stderr
    facts = json.loads((tmp_path / "a.json").read_text())["summary"]
    # The head alone, 8 blocks, 7 pairs; 2 folds each; the fake trainings take 10 epochs, 2.5 s and a tera-MAC.
    assert (facts["subsets"], facts["trainings"], facts["epochs"]) == (16, 32, 320)
    assert (facts["seconds"], facts["macs"]) == (80.0, 32 * 10**12)
    fake = Fake(HEADER)
    best = max(RESNET18, key=lambda name: fake.score((name,)).mean)
    assert facts["best_block"]["subset"] == [best]
    assert facts["selections"][0]["max_blocks"] == 2
    text = said(run.stdout)
    for words in ("resnet", "flowers, 800 training images", "2 folds (seed 0)", "1 min 20 s, 32.0 TMACs", best, "forward"):
        assert words in text


def test_a_summary_of_a_comparison_lists_the_methods(folder: Path) -> None:
    run = espalier("tune", "replay", folder / "compare.jsonl")
    assert run.returncode == 0, run.stderr
    for words in ("subtuning", "lora, rank 8", "the test split"):
        assert words in run.stdout
    assert espalier("tune", "replay", folder / "empty.jsonl").returncode == 0


def test_other_rules_are_answered_or_said_to_be_missing(folder: Path, tmp_path: Path) -> None:
    rules = ("--epsilon", "0.5,-1", "--cost-weight", "0.02", "--json", tmp_path / "a.json")
    run = espalier("tune", "replay", folder / "greedy.jsonl", *rules)
    assert run.returncode == 0, run.stderr
    stopped, missing = json.loads((tmp_path / "a.json").read_text())["answers"]
    assert stopped["chosen"] == []
    assert stopped["macs_share"] == pytest.approx(20_000 / HEADER.macs)
    assert stopped["value"] == pytest.approx(stopped["accuracy"] - 0.02 * stopped["macs_share"])
    assert "gains" in stopped["why"]
    assert missing["chosen"] is None
    assert "run tune greedy with these options" in missing["lacks"]
    text = said(run.stdout)
    assert "not in the ledger" in text
    assert "epsilon -1: The ledger does not say what it costs to serve" in text
    assert "less costs" in text


def test_one_option_is_enough_to_ask(folder: Path) -> None:
    text = said(espalier("tune", "replay", folder / "greedy.jsonl", "--max-blocks", "0").stdout)
    assert "head alone" in text
    assert "0 blocks are the most" in text
    assert "less costs" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nowhere.jsonl", "cannot be read as a ledger"),
        ("no-ledger.txt --epsilon 0.1", "is no ledger of espalier"),
        ("greedy.jsonl --epsilon much", "'much' is no number"),
        ("greedy.jsonl --epsilon nan", "is no number"),
        ("greedy.jsonl --epsilon 1,", "is no number"),
        ("greedy.jsonl --direction sideways", "'sideways' is not one of"),
        ("greedy.jsonl --latency-budget-ms 0.1", "Even the head alone adds 0.50 ms"),
        ("greedy.jsonl --json missing/a.json", "Cannot write missing/a.json"),
        ("compare.jsonl --epsilon 0.1", "a comparison of methods on the test split, not a search"),
    ],
)
def test_a_replay_that_cannot_be_is_one_sentence_and_exit_code_2(folder: Path, arguments: str, words: str) -> None:
    run = espalier("tune", "replay", *arguments.split(), cwd=folder)
    assert run.returncode == 2
    assert words in said(run.stderr)
    assert run.stdout == ""


@pytest.mark.parametrize("command", ["plot", "replay"])
def test_help(command: str) -> None:
    run = espalier("tune", command, "--help")
    assert run.returncode == 0
    assert "LEDGER" in run.stdout


@pytest.mark.slow
def test_a_search_that_was_run_is_drawn_and_replayed(tmp_path: Path) -> None:
    from tests.nets import tiny_data, tiny_vit
    from tuning.search.search import SearchOptions, open_search
    from tuning.training.loop import FitOptions

    ledger = tmp_path / "search.jsonl"
    options = SearchOptions(folds=3)
    with open_search(tiny_vit(), tiny_data(train=30), FitOptions(epochs=1, batch_size=8), options, ledger) as search:
        made = search.select("forward", StopRule(-1.0, max_blocks=2), Objective())
        search.profile()
    for kind in ("auto", "profile", "cost"):
        run = espalier("tune", "plot", ledger, "--kind", kind, "--out", tmp_path / f"{kind}.svg")
        assert run.returncode == 0, run.stderr
    assert "Forward selection: timm/vit_tiny" in (tmp_path / "auto.svg").read_text()
    run = espalier("tune", "replay", ledger, "--epsilon", "-1", "--max-blocks", "2", "--json", tmp_path / "a.json")
    assert run.returncode == 0, run.stderr
    (answer,) = json.loads((tmp_path / "a.json").read_text())["answers"]
    assert answer["chosen"] == list(made.chosen.subset)
    assert answer["accuracy"] == pytest.approx(made.chosen.score.mean)
