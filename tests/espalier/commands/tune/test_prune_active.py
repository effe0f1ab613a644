from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.espalier.test_cli import espalier
from tests.nets import tiny_data, tiny_resnet
from tuning.network.backbone import load_backbone, save_backbone
from tuning.network.checkpoint import build_network, load_task

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]

QUICK = ["--epochs", "1", "--batch-size", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, a folder of labelled images, one of images without labels, and a task."""
    root = tmp_path_factory.mktemp("tune")
    save_backbone(tiny_resnet(), root / "backbone.safetensors")
    data = tiny_data()
    for part, split in (("train", data.train), ("test", data.test)):
        for index, (image, target) in enumerate(zip(split.images, split.targets, strict=True)):
            place = root / "data" / part / data.labels[target]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index}.png")
    (root / "pool").mkdir()
    for index, image in enumerate(data.test.images):
        Image.fromarray(image).save(root / "pool" / f"{index}.png")
    run = espalier(
        "tune", "fit", *_on("backbone.safetensors", "data"), "--blocks", "layer4.1", "--image-size", "24", *QUICK,
        "--out", "t.safetensors", cwd=root,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return root


def _on(backbone: str, data: str) -> list[str]:
    return ["--backbone", backbone, "--data", data]


def test_prune_writes_a_smaller_task(folder: Path) -> None:
    options = [*_on("backbone.safetensors", "data"), "--task", "t.safetensors", *QUICK, "--out", "small.safetensors"]
    run = espalier("tune", "prune", *options, "--ratio", "0.75", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "layer4.1.conv1 16 to 4" in run.stdout
    assert "4.7 kMACs" in run.stdout
    assert "1.2 kMACs" in run.stdout  # 2 x 9 x 16 x 4 + 16 x 3
    task = load_task(folder / "small.safetensors")
    assert task.backbone.preprocessing.height == 24  # as it was tuned, not as the backbone has it
    network = build_network(load_backbone(folder / "backbone.safetensors", image_size=24), task)
    assert network.get_submodule("layer4.1").conv2.in_channels == 4
    assert task.provenance["pruned_ratio"] == 0.75


def test_prune_says_what_is_wrong(folder: Path) -> None:
    options = [*_on("backbone.safetensors", "data"), "--task", "t.safetensors", "--out", "refused.safetensors"]
    run = espalier("tune", "prune", *options, "--ratio", "1", cwd=folder)
    assert run.returncode != 0
    assert "must lie between 0 and 1" in run.stderr


def test_a_task_is_pruned_on_the_images_that_it_was_tuned_on(folder: Path) -> None:
    options = [*_on("backbone.safetensors", "data"), "--task", "t.safetensors", "--out", "small.safetensors", "--force"]
    run = espalier("tune", "prune", *options, "--image-size", "32", cwd=folder)
    assert run.returncode == 2
    assert "the task was tuned on 24x24 pixels; leave it out" in " ".join(run.stderr.replace("│", " ").split())


def test_a_simulation_compares_margins_with_chance(folder: Path) -> None:
    options = [*_on("backbone.safetensors", "data"), "--blocks", "layer4.1", *QUICK, "--sizes", "6,12", "--seeds", "2"]
    run = espalier("tune", "active", *options, "--report", "report.json", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "accuracy, %: margin" in run.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["subset"] == ["layer4.1"]
    assert report["seeds"] == [0, 1]
    for strategy in ("margin", "random"):
        rounds = report["strategies"][strategy]
        assert [r["labels"] for r in rounds] == [6, 12]
        assert all(len(r["rows"][0]) == r["labels"] for r in rounds)
        assert all(np.mean(r["test_accuracy"]) == pytest.approx(r["mean"]) for r in rounds)


def test_the_next_files_to_label_are_written(folder: Path) -> None:
    options = [
        "--backbone",
        "backbone.safetensors",
        "--pool",
        "pool",
        "--task",
        "t.safetensors",
        "--count",
        "5",
        "--out",
        "next.csv",
    ]
    run = espalier("tune", "active", *options, cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "5 of 12 images to label next" in run.stdout
    rows = list(csv.DictReader((folder / "next.csv").read_text().splitlines()))
    assert len({row["file"] for row in rows}) == 5
    assert [float(row["margin"]) for row in rows] == sorted(float(row["margin"]) for row in rows)
    assert {row["predicted"] for row in rows} <= {"class0", "class1", "class2"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --pool"),
        (["--pool", "pool", "--data", "data"], "either --pool"),
        (["--pool", "pool", "--task", "t.safetensors"], "where to write the files to label"),
        (["--pool", "pool", "--task", "t.safetensors", "--out", "next.txt"], "must end in .csv"),
        (["--data", "data", "--sizes", "6,many"], "no list of numbers"),
        (["--data", "data", "--sizes", "12,6"], "rising from at least 2"),
        (["--data", "data"], "1500 labels are asked for, but the pool has 24"),
    ],
)
def test_active_says_what_is_wrong(folder: Path, arguments: list[str], said: str) -> None:
    run = espalier("tune", "active", "--backbone", "backbone.safetensors", *arguments, cwd=folder)
    assert run.returncode != 0
    assert said in " ".join(run.stderr.replace("│", " ").split())
