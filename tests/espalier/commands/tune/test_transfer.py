from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.espalier.test_cli import espalier
from tests.nets import tiny_resnet, tiny_vit
from tuning.network.backbone import load_backbone, save_backbone
from tuning.network.checkpoint import build_network, load_task

pytestmark = pytest.mark.usefixtures("kept_traces")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    save_backbone(tiny_resnet(), folder / "student.safetensors")
    save_backbone(tiny_vit(seed=1), folder / "vit.safetensors")
    save_backbone(tiny_resnet(seed=2), folder / "resnet.safetensors")
    return folder


TEACHERS = ["--teacher", "vit=vit.safetensors", "--teacher", "resnet=resnet.safetensors"]
TINY = ["tune", "transfer", "--student", "student.safetensors", "--data", "digits:parity", "--steps", "2", "--batch-size", "8"]


@pytest.mark.slow
def test_all_methods_are_compared_and_aft_is_written(folder: Path) -> None:
    files = ["--out", "task.safetensors", "--report", "report.json"]
    run = espalier(*TINY, *TEACHERS, "--method", "all", "--seeds", "2", "--seed", "7", *files, cwd=folder)
    assert run.returncode == 0, run.stderr
    for word in ("aft", "plain", "distillation", "±", "vit", "quartiles", "aft, seed 7"):
        assert word in run.stdout
    checkpoint = load_task(folder / "task.safetensors")
    assert (checkpoint.provenance["method"], checkpoint.seed) == ("adaptive feature transfer", 7)
    assert build_network(load_backbone(folder / "student.safetensors"), checkpoint) is not None
    report = json.loads((folder / "report.json").read_text())
    assert list(report["methods"]) == ["aft", "plain", "distillation"]
    runs = report["methods"]["aft"]["runs"]
    assert [one["seed"] for one in runs] == [7, 8]
    mean = sum(one["test_accuracy"] for one in runs) / 2
    assert report["methods"]["aft"]["test_accuracy"]["mean"] == pytest.approx(mean)
    assert runs[0]["test_accuracy"] == checkpoint.scores["test_accuracy"]
    assert {name: one["dimensions"] for name, one in report["teacher_weights"].items()} == {"vit": 32, "resnet": 16}
    assert report["options"]["steps"] == 2


@pytest.mark.slow
def test_plain_needs_no_teacher_and_the_result_is_exported_like_any_task(folder: Path) -> None:
    run = espalier(*TINY, "--method", "plain", "--out", "plain.safetensors", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "quartiles" not in run.stdout
    run = espalier(
        "export", "--backbone", "student.safetensors", "--task", "parity=plain.safetensors", "--out", "repo", cwd=folder
    )
    assert run.returncode == 0, run.stderr
    assert (folder / "repo" / "parity" / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "learns from teachers; name at least one"),
        (["--teacher", "vit.safetensors"], "not of the form NAME=MODEL"),
        ([*TEACHERS, "--teacher", "vit=resnet.safetensors"], "'vit' is given twice"),
        ([*TEACHERS, "--method", "magic"], "must be aft, plain, distillation or all, not 'magic'"),
        ([*TEACHERS, "--report", "report.txt"], "must end in .json"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(folder: Path, arguments: list[str], words: str) -> None:
    run = espalier(*TINY, "--out", "refused.safetensors", *arguments, cwd=folder)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.replace("│", " ").split())
    assert not (folder / "refused.safetensors").exists()


def test_the_help_says_what_is_written() -> None:
    run = espalier("tune", "transfer", "--help")
    assert run.returncode == 0
    assert "of the first seed" in " ".join(run.stdout.replace("│", " ").split())
