"""`espalier tune fit`: what it writes, and what it refuses."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image, ImageColor

from contract.kinds.values import Values
from tests.espalier.test_cli import Run, espalier
from tests.nets import tiny_resnet, tiny_vit
from tuning.network.backbone import Backbone, load_backbone, save_backbone
from tuning.network.checkpoint import build_network, load_task

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

NETS = {"resnet": tiny_resnet, "vit": tiny_vit}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    for name, make in NETS.items():
        save_backbone(make(), folder / f"{name}.safetensors")
    for (part, count), colour in itertools.product((("train", 4), ("test", 2)), ("red", "green", "blue")):
        images = folder / "colours" / part / colour
        images.mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), ImageColor.getrgb(f"hsl({index * 5 + 120 * len(colour)}, 80%, 50%)")).save(
                images / f"{index}.png"
            )
    return folder


def _backbone(folder: Path, net: str) -> Backbone:
    return load_backbone(folder / f"{net}.safetensors")


def _fit(folder: Path, net: str, *arguments: str | Path, out: str = "task.safetensors") -> Run:
    """Tune on twelve images for an epoch, unless the arguments say otherwise."""
    quick = ["--epochs", "1", "--batch-size", "8", "--device", "cpu", "--force"]
    data = [] if "--data" in arguments else ["--data", "colours"]
    return espalier("tune", "fit", "--backbone", f"{net}.safetensors", *data, "--out", out, *quick, *arguments, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "arguments", "subset"),
    [
        ("resnet", ["--blocks", "layer4.1,layer3.0"], ("layer3.0", "layer4.1")),
        ("resnet", ["--blocks", "layer4.0:norm"], ("layer4.0.bn1", "layer4.0.bn2", "layer4.0.downsample.1")),
        ("vit", ["--blocks", "blocks.[12].attn"], ("blocks.1.attn", "blocks.2.attn")),
        ("vit", ["--blocks", "attention"], ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")),
        ("vit", ["--blocks", "blocks.2", "--siamese"], ("blocks.2",)),
        ("vit", ["--blocks", "blocks.2", "--warm-head", "--epochs", "2"], ("blocks.2",)),
        ("vit", ["--method", "surgical", "--group", "3"], ("blocks.2",)),
        ("vit", ["--method", "linear-probe"], ()),
        (
            "vit",
            ["--method", "lora", "--rank", "2"],
            tuple(f"blocks.{i}.attn.{layer}" for i in range(3) for layer in ("qkv", "proj")),
        ),
    ],
)
def test_what_is_tuned_is_in_the_checkpoint(folder: Path, net: str, arguments: list[str], subset: tuple[str, ...]) -> None:
    run = _fit(folder, net, *arguments)
    assert run.returncode == 0, run.stderr
    checkpoint = load_task(folder / "task.safetensors")
    assert checkpoint.subset == subset
    assert checkpoint.siamese == ("--siamese" in arguments)
    build_network(_backbone(folder, net), checkpoint)
    assert f"test_accuracy {checkpoint.scores['test_accuracy']:.3f}" in run.stdout
    assert run.stdout.startswith(
        "colours: 12 images to learn from, 6 to test on, 3 classes (blue, green, red).\nSplits: train to learn from, test to test on.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["all-blocks", "full-finetuning", "lp-ft", "auto-rgn", "gradual-unfreezing", "norm-only"])
def test_every_method_has_a_name(folder: Path, method: str) -> None:
    run = _fit(folder, "vit", "--method", method, "--epochs", "2")
    assert run.returncode == 0, run.stderr
    checkpoint = load_task(folder / "task.safetensors")
    assert checkpoint.provenance["method"] == method.replace("-", " ") or checkpoint.provenance["method"] == method
    assert checkpoint.provenance["epochs"] == 2


def test_the_help_names_every_method() -> None:
    from espalier.commands.options.methods import baseline_names

    text = re.sub(r"[\s│]+", "", espalier("tune", "fit", "--help").stdout)
    assert all(name in text for name in baseline_names())


@pytest.mark.slow
def test_seeds_are_reported_and_the_first_is_written(folder: Path) -> None:
    run = _fit(
        folder, "vit", "--blocks", "blocks.2", "--seed", "3", "--seeds", "2", "--views", "2", "--flip", "--report", "report.json"
    )
    assert run.returncode == 0, run.stderr
    report = json.loads((folder / "report.json").read_text())
    first, second = report["seeds"]
    assert [first["seed"], second["seed"]] == [3, 4]
    accuracies = [first["test_accuracy"], second["test_accuracy"]]
    mean = sum(accuracies) / 2
    assert report["test_accuracy"]["mean"] == pytest.approx(mean)
    assert report["test_accuracy"]["std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert f"{mean:.3f} ±" in run.stdout
    assert report["method"]["phases"][0]["paths"] == ["blocks.2"]
    assert report["options"]["views"] == 2
    assert report["versions"]["torch"] == torch.__version__
    checkpoint = load_task(folder / "task.safetensors")
    assert checkpoint.seed == 3
    assert checkpoint.scores["test_accuracy"] == first["test_accuracy"]
    _fit(folder, "vit", "--blocks", "blocks.2", "--seed", "3", "--views", "2", "--flip", out="alone.safetensors")
    alone = load_task(folder / "alone.safetensors")
    assert all(torch.equal(tensor, alone.tensors[name]) for name, tensor in checkpoint.tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "where"), [("auto", "in memory"), ("memory", "in memory"), ("disk", "in a file"), ("off", None)]
)
def test_kept_features_are_announced_and_cleared_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, where: str | None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = _fit(folder, "vit", "--blocks", "none", "--cache", cache)
    assert run.returncode == 0, run.stderr
    said = re.findall(r"Keeping .* MB of frozen features of ([0-9,]+) (\w+) images, (in .*)\.", run.stderr)
    assert said == ([] if where is None else [("12", "training", where), ("6", "test", where)])
    assert load_task(folder / "task.safetensors").provenance["features_computed_once"] == (where is not None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--blocks", "blocks.9"], "Unknown block 'blocks.9'; this backbone's blocks are: blocks.0, blocks.1, blocks.2."),
        (["--blocks", "blocks.0:nrom"], "Unknown block 'blocks.0:nrom'"),
        (["--method", "magic"], "'magic' is none of linear-probe, full-finetuning"),
        (["--method", "lora", "--blocks", "blocks.1"], "leave out --blocks"),
        (["--method", "surgical"], "needs --group"),
        (["--method", "surgical", "--group", "4"], "in 3 groups"),
        (["--group", "1"], "--method surgical with --group"),
        (["--method", "lp-ft", "--rank", "2"], "only --method lora has a rank"),
        ([], "say what to tune: block names, which `espalier tune blocks` lists; none for a new head alone (a linear probe)"),
        (["--blocks", "none", "--siamese"], "say what to tune with --blocks"),
        (["--blocks", "none", "--warm-head"], "say what to tune with --blocks"),
        (["--blocks", "none", "--method", "lora"], "leave out --blocks"),
        (["--blocks", "blocks.1", "--warm-head"], "at least 2 epochs"),
        (["--blocks", "blocks.1", "--all-weights"], 'subset "all"'),
        (["--blocks", "none", "--flip"], "without --views"),
        (["--blocks", "none", "--device", "quantum"], "Device 'quantum' cannot be used"),
        (["--precision", "float16"], "float16"),
        (["--cache", "cloud"], "cloud"),
        (["--report", "report.txt"], "must end in .json"),
        (["--report", "nowhere/report.json"], "does not exist"),
        (["--blocks", "none", "--data", "digits:nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_done_gets_one_sentence_and_exit_code_2(folder: Path, arguments: list[str], words: str) -> None:
    run = _fit(folder, "vit", *arguments, out="refused.safetensors")
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.returncode == 2
    assert words in said
    assert "Traceback" not in said
    assert not (folder / "refused.safetensors").exists()


@pytest.mark.parametrize(
    "command",
    [
        "fit --backbone vit.safetensors --data colours --blocks none --out there.safetensors",
        "fit --backbone vit.safetensors --data colours --blocks none --out new.safetensors --report there.json",
        "prune --backbone vit.safetensors --data colours --task there.safetensors --out there.safetensors",
        "pretrain --network resnet18 --data colours --out there.safetensors",
        "transfer --student vit.safetensors --data colours --method plain --out there.safetensors",
        "active --backbone vit.safetensors --pool colours --task there.safetensors --out there.csv",
        "active --backbone vit.safetensors --data colours --report there.json",
        "plot ledger.jsonl --out there.svg",
    ],
)
def test_nothing_is_replaced_without_force_nor_anything_begun(folder: Path, command: str) -> None:
    for suffix in ("safetensors", "json", "csv", "svg"):
        (folder / f"there.{suffix}").write_text("precious")
    run = espalier("tune", *command.split(), cwd=folder)
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.returncode == 2
    assert "exists already; choose another file, or replace it with --force." in said
    assert "images to learn from" not in run.stdout
    assert all(file.read_text() == "precious" for file in folder.glob("there.*"))
    assert not (folder / "new.safetensors").exists()


def test_a_network_with_weights_of_its_own_is_named_as_for_export(folder: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": network.state_dict(), "state_dict_ema": network.state_dict()}, folder / "b.pth")
    run = espalier("tune", "blocks", "--backbone", "test_resnet@b.pth", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "layer1.0" in run.stdout
    assert run.stdout.startswith("b.pth holds averaged weights (state_dict_ema) beside others (state_dict)")
    assert espalier("tune", "blocks", "--backbone", "test_resnet", "--checkpoint", "b.pth", cwd=folder) == run
    for arguments, words in (
        (["test_resnet@b.pth", "--checkpoint", "b.pth"], "b.pth and b.pth would both be its weights; give one"),
        (["test_resnet@gone.pth"], "gone.pth: there is no such file"),
        (["b.pth"], "give weights from elsewhere with their network, as NAME@FILE"),
        (["package.module:make"], "this names Python code"),
    ):
        refused = espalier("tune", "blocks", "--backbone", *arguments, cwd=folder)
        assert refused.returncode == 2
        assert words in " ".join(refused.stderr.split())


def test_values_of_a_table_are_fitted_and_bad_asking_is_refused(folder: Path) -> None:
    names = [f"colours/train/{colour}/{index}.png" for colour in ("red", "green", "blue") for index in range(4)]
    (folder / "sides.csv").write_text("file,side\n" + "\n".join(f"{name},{i}" for i, name in enumerate(names)))
    asked = [
        "--data",
        "sides.csv",
        "--kind",
        "values:units=mm",
        "--image-column",
        "file",
        "--seeds",
        "2",
        "--report",
        "sides.json",
    ]
    run = _fit(folder, "resnet", "--blocks", "none", *asked, out="sides.safetensors")
    assert run.returncode == 0, run.stderr
    assert "10 images to learn from, 2 to test on, 1 values (side)." in run.stdout
    assert "Mean absolute error: in the units of the values; less is better." in run.stdout
    checkpoint = load_task(folder / "sides.safetensors")
    assert (checkpoint.kind, checkpoint.labels) == (Values(("mm",)), ("side",))
    report = json.loads((folder / "sides.json").read_text())
    assert report["seeds"][0]["test_mean_absolute_error"] == checkpoint.scores["test_mean_absolute_error"]
    assert report["test_mean_absolute_error"]["std"] is not None
    for arguments, said in (
        (["--kind", "mask"], "Tasks of the kind 'mask' cannot be tuned; classes, labels and values can."),
        (["--kind", "values"], "there is no column 'image'"),
        ([], "sides.csv is a table, which is for the kinds labels and values"),
        (["--kind", "valuse"], "valuse"),
    ):
        refused = _fit(folder, "resnet", "--blocks", "none", "--data", "sides.csv", *arguments, out="none.safetensors")
        assert refused.returncode != 0
        assert said in " ".join(refused.stderr.replace("│", " ").split()), refused.stderr
    assert not (folder / "none.safetensors").exists()
