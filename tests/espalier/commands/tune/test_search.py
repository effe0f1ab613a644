from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.espalier.test_cli import Run, espalier
from tests.nets import tiny_resnet
from tuning.network.backbone import load_backbone, save_backbone
from tuning.search.ledger import read_ledger

pytestmark = pytest.mark.usefixtures("kept_traces")

SHORT = ("--data", "digits:parity", "--folds", "2", "--epochs", "1", "--workers", "2")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_backbone(tiny_resnet(), file)
    return file


@pytest.mark.slow
def test_profile_then_greedy_on_one_ledger_train_nothing_twice(backbone: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "parity.jsonl"
    common = ("--backbone", backbone, *SHORT, "--blocks", "layer4.0,layer4.1", "--ledger", ledger)
    run = espalier("tune", "profile", *common, "--pairs")
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("(head only)", "layer4.0", "layer4.1", "best pairs", "8 trainings in the ledger"))
    assert "MB of frozen features" in run.stderr
    before = read_ledger(ledger).trials
    run = espalier("tune", "greedy", *common, "--epsilon", "-1", "--max-blocks", "2")
    assert run.returncode == 0, run.stderr
    assert "Chosen: layer4.0 + layer4.1" in run.stdout
    assert "2 blocks are the most allowed" in run.stdout
    assert read_ledger(ledger).trials == before
    assert len(read_ledger(ledger).notes) == 1


@pytest.mark.slow
def test_greedy_with_costs_prints_the_front(backbone: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    run = espalier(
        "tune",
        "greedy",
        "--backbone",
        backbone,
        *SHORT,
        "--blocks",
        "layer1.0,layer4.1",
        "--ledger",
        ledger,
        "--cost-weight",
        "10",
    )
    assert run.returncode == 0, run.stderr
    assert "Accuracy against serving cost" in run.stdout
    assert "Chosen: (head only)" in run.stdout  # nothing is worth ten times its compute
    costs = read_ledger(ledger).costs
    assert costs[("layer1.0",)].macs > costs[("layer4.1",)].macs > costs[()].macs


@pytest.mark.slow
def test_a_ranked_search_says_what_it_did_not_train(backbone: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    common = ("--backbone", backbone, *SHORT, "--blocks", "layer3.1,layer4.0,layer4.1", "--ledger", ledger, "--max-blocks", "1")
    run = espalier("tune", "greedy", *common, "--rank", "epoch", "--halving", "folds")
    assert run.returncode == 0, run.stderr
    assert "Ranked by epoch: 2 subsets were trained on every fold, 1 on some; 3 cheap measurements." in run.stdout
    assert "An exhaustive search may choose others." in run.stdout
    assert "5 trainings and 3 cheap measurements in the ledger" in run.stdout
    run = espalier("tune", "replay", ledger)
    assert run.returncode == 0, run.stderr
    assert "5 and 3 cheap measurements, 8 epochs" in run.stdout
    run = espalier("tune", "greedy", *common, "--exhaustive")  # goes on from what is there
    assert run.returncode == 0, run.stderr
    assert "Ranked" not in run.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--exhaustive", "--rank", "epoch"), "an exhaustive search ranks nothing"),
        (("--keep", "0.25"), "without --rank every candidate is trained"),
        (("--halving", "folds"), "without --rank every candidate is trained"),
        (("--rank", "epoch", "--keep", "0"), "must be over 0 and at most 1, not 0"),
        (("--rank", "luck"), "'luck' is not one of 'epoch', 'gradients', 'singles'"),
    ],
)
def test_impossible_rankings_are_refused(options: tuple[str, ...], sentence: str, backbone: Path, tmp_path: Path) -> None:
    common = ("--backbone", backbone, *SHORT, "--ledger", tmp_path / "l.jsonl")
    assert sentence in refused("greedy", *common, *options)
    assert not (tmp_path / "l.jsonl").exists()


@pytest.mark.slow
def test_compare_prints_a_table(backbone: Path, tmp_path: Path) -> None:
    options = ("--sizes", "20,40", "--seeds", "2", "--folds", "2", "--lrs", "1e-3", "--epochs", "1", "--data", "digits:parity")
    run = espalier(
        "tune", "compare", "--backbone", backbone, *options, "--methods", "linear-probe,lp-ft", "--ledger", tmp_path / "l.jsonl",
        "--epochs", "2",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("20 images", "40 images", "linear probe", "lp-ft", "±"))


@pytest.mark.slow
def test_a_pretrained_backbone_can_be_tuned(tmp_path: Path) -> None:
    file = tmp_path / "digits.safetensors"
    run = espalier(
        "tune", "pretrain", "--network", "resnet18", "--channels", "8,8,16,16", "--image-size", "32", "--data", "digits:digits",
        "--epochs", "1", "--out", file,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "test accuracy" in run.stdout
    assert load_backbone(file).spec.weights == "pretrained on digits:digits, 1 epochs, seed 0"


def refused(*arguments: str | Path) -> str:
    run: Run = espalier("tune", *arguments)
    assert run.returncode == 2, run.stdout
    return " ".join(run.stderr.replace("│", " ").split())


def test_an_unknown_candidate_lists_the_known(backbone: Path, tmp_path: Path) -> None:
    said = refused("profile", "--backbone", backbone, *SHORT, "--blocks", "layer9.0", "--ledger", tmp_path / "l.jsonl")
    assert "Unknown block 'layer9.0'; this backbone's blocks are: layer1.0, layer1.1" in said
    assert not (tmp_path / "l.jsonl").exists()


@pytest.mark.slow
def test_a_ledger_of_other_data_is_refused(backbone: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    common = ("--backbone", backbone, "--folds", "2", "--epochs", "1", "--blocks", "layer4.1", "--ledger", ledger)
    assert espalier("tune", "profile", *common, "--data", "digits:parity").returncode == 0
    said = refused("profile", *common, "--data", "digits:inverted")
    assert "is of another data set: it has parity" in said or "is of another data set: it has digits:parity" in said


@pytest.mark.slow
def test_unknown_methods_and_bad_numbers_are_refused(backbone: Path, tmp_path: Path) -> None:
    common = ("--backbone", backbone, "--data", "digits:parity", "--ledger", tmp_path / "l.jsonl")
    assert "Unknown method 'probing'; known are: subtuning" in refused("compare", *common, "--methods", "probing")
    assert "must be numbers, separated by commas" in refused("compare", *common, "--sizes", "ten")
    assert "Cannot draw 5000" in refused("compare", *common, "--sizes", "5000")


@pytest.mark.slow
def test_values_of_a_table_are_searched_in_their_unit(backbone: Path, tmp_path: Path) -> None:
    lines = ["image,length"]
    for index in range(20):
        Image.new("RGB", (32, 32), (12 * index,) * 3).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{index}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    common = (
        "--backbone",
        backbone,
        "--data",
        tmp_path / "t.csv",
        "--folds",
        "2",
        "--epochs",
        "1",
        "--ledger",
        tmp_path / "l.jsonl",
    )
    run = espalier("tune", "greedy", *common, "--kind", "values:units=mm", "--blocks", "layer4.1", "--epsilon", "-99")
    assert run.returncode == 0, run.stderr
    assert "mean absolute error, mm" in run.stdout
    assert "less is better" in run.stdout
    assert "Chosen: layer4.1" in run.stdout
    assert "is a table, which is for the kinds labels and values" in refused("profile", *common)
