"""Labels and values are learnt from drawn pictures, kept, exported, and answered over /predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import espalier
from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from contract.repository import read_repository
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier as espalier_command
from tests.nets import tiny_data, tiny_resnet, tiny_vit
from tests.serving.pictures import file
from tests.serving.protocol.http.test_http import Http
from tests.tuning.kinds.drawn import drawn, picture, picture_of
from tuning.data.labelled import Split
from tuning.errors import BadData, UnsupportedNetwork
from tuning.network.backbone import save_backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network, load_task, save_task
from tuning.network.normalise import Normalise
from tuning.pruning.prune import prune_task
from tuning.training.fit import FitOptions, fit, pretrain

pytestmark = pytest.mark.slow

OPTIONS = FitOptions(epochs=15, batch_size=16, lr=1e-2, device="cpu")


@pytest.fixture(scope="module")
def tuned() -> Mapping[str, TaskCheckpoint]:
    kinds: dict[str, Kind] = {"colours": Labels((0.4,)), "sides": Values(("mm",))}
    return {name: fit(tiny_resnet(), drawn(kind), "all", OPTIONS) for name, kind in kinds.items()}


def test_held_out_pictures_are_answered_well(tuned: Mapping[str, TaskCheckpoint]) -> None:
    assert tuned["colours"].scores["test_mean_average_precision"] > 0.9
    scores = tuned["sides"].scores
    assert scores["test_mean_absolute_error_side"] < 2.5  # of sides from 4 to 27: always the middle would be 6
    assert scores["test_mean_absolute_error_minus_twice"] < 5


def test_the_network_gives_values_in_their_own_units(tuned: Mapping[str, TaskCheckpoint]) -> None:
    data, backbone = drawn(Values()), tiny_resnet()
    network = nn.Sequential(Normalise(backbone.spec.preprocessing), build_network(backbone, tuned["sides"]))
    with torch.no_grad():
        errors = np.abs(network(torch.from_numpy(data.test.images)).numpy() - data.test.targets).mean(0)
    scores = tuned["sides"].scores
    wanted = [scores["test_mean_absolute_error_side"], scores["test_mean_absolute_error_minus_twice"]]
    np.testing.assert_allclose(errors, wanted, rtol=1e-2)


def test_a_repository_of_checkpoints_answers_by_kind_and_nobody_says_it(
    tuned: Mapping[str, TaskCheckpoint], tmp_path: Path
) -> None:
    save_backbone(tiny_resnet(), tmp_path / "backbone.safetensors")
    for name, checkpoint in tuned.items():
        save_task(checkpoint, tmp_path / f"{name}.safetensors")
        assert load_task(tmp_path / f"{name}.safetensors").kind == checkpoint.kind
    files = {name: tmp_path / f"{name}.safetensors" for name in tuned}
    espalier.export(files, tmp_path / "repo", backbone=tmp_path / "backbone.safetensors")
    kinds = {name: task.kind for name, task in read_repository(tmp_path / "repo").tasks.items()}
    assert kinds == {"colours": Labels((0.4,)), "sides": Values(("mm",))}
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as server:
        marks = _ask(server, picture(("blue", "red"), 9))["colours"]
        values = _ask(server, picture_of(20))["sides"]["values"]
    assert {label["label"] for label in marks["labels"]} == {"blue", "red"}
    assert [(value["name"], value["unit"]) for value in values] == [("side", "mm"), ("minus_twice", "mm")]
    assert values[0]["value"] == pytest.approx(1020, abs=6)
    assert values[1]["value"] == pytest.approx(-40, abs=12)


def _ask(server: BackgroundServer, image: Image.Image) -> dict[str, Any]:
    http = Http(server)
    status, body = http("POST", "/predict", file("PNG", image))
    http.connection.close()
    assert status == 200, body
    return dict(body["tasks"])


@pytest.mark.parametrize("siamese", [False, True])
def test_values_of_a_vit_and_of_siamese_heads_are_folded_too(siamese: bool) -> None:
    data, backbone = drawn(Values(), 40), tiny_vit()
    checkpoint = fit(backbone, data, ["blocks.2"], replace(OPTIONS, epochs=2), siamese=siamese)
    network = nn.Sequential(Normalise(backbone.spec.preprocessing), build_network(backbone, checkpoint))
    with torch.no_grad():
        given = network(torch.from_numpy(data.train.images)).numpy()
    assert np.abs(given.mean(0) - data.train.targets.mean(0)).max() < 30  # and not near 0


def test_values_that_do_not_differ_and_heads_without_bias_are_refused() -> None:
    data = drawn(Values(), 40)
    same = replace(data, train=Split(data.train.images, np.full_like(data.train.targets, 7)))
    with pytest.raises(BadData, match="the same 'side' in all training images, 7; there is nothing to learn"):
        fit(tiny_resnet(), same, "none", OPTIONS)
    backbone = tiny_resnet()
    backbone.network.fc = nn.Linear(16, 5, bias=False)
    with pytest.raises(UnsupportedNetwork, match="last layer has no bias, which values need"):
        fit(backbone, data, "none", OPTIONS)


def test_what_is_for_classes_alone_refuses_other_kinds(tuned: Mapping[str, TaskCheckpoint], tmp_path: Path) -> None:
    data, backbone = drawn(Labels(), 40), tiny_resnet()
    with pytest.raises(BadData, match="Pruning is for classes"):
        prune_task(backbone, tuned["colours"], tiny_data(), OPTIONS)
    with pytest.raises(BadData, match="Pretraining is for classes"):
        pretrain("resnet18", data, backbone.spec.preprocessing, OPTIONS)
    assert not list(tmp_path.iterdir())


def test_thresholds_that_are_found_go_from_the_table_to_the_answer(tmp_path: Path) -> None:
    parts = {"train": 24, "val": 12, "test": 6}
    lines, data = ["image,labels,split"], drawn(Labels(), 56)
    rows = iter(zip(data.train.images, data.train.targets, strict=True))
    for split, count in parts.items():
        for index in range(count):
            pixels, there = next(rows)
            name = f"{split}{index}.png"
            Image.fromarray(pixels).save(tmp_path / name)
            lines.append(f"{name},{';'.join(c for c, yes in zip(data.labels, there, strict=True) if yes)},{split}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    save_backbone(tiny_resnet(), tmp_path / "backbone.safetensors")
    run = espalier_command(
        "tune", "fit", "--backbone", tmp_path / "backbone.safetensors", "--data", tmp_path / "t.csv", "--kind", "labels",
        "--blocks", "none", "--epochs", "3", "--device", "cpu", "--out", tmp_path / "marks.safetensors",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = load_task(tmp_path / "marks.safetensors")
    assert isinstance(found.kind, Labels)
    assert (len(found.kind.thresholds), found.provenance["train_images"]) == (3, 24)
    assert f"blue {found.kind.threshold(0):.3f}, green {found.kind.threshold(1):.3f}" in run.stdout
    espalier.export({"marks": tmp_path / "marks.safetensors"}, tmp_path / "repo", backbone=tmp_path / "backbone.safetensors")
    assert read_repository(tmp_path / "repo").tasks["marks"].kind == found.kind
    network = nn.Sequential(Normalise(found.backbone.preprocessing), build_network(tiny_resnet(), found))
    with torch.no_grad():
        scores = torch.sigmoid(network(torch.from_numpy(data.train.images[:1])))[0].tolist()
    wanted = {label for label, score, least in zip(found.labels, scores, found.kind.thresholds, strict=True) if score >= least}
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as server:
        answered = _ask(server, Image.fromarray(data.train.images[0]))["marks"]["labels"]
    assert {label["label"] for label in answered} == wanted
    for label in answered:
        assert label["score"] == pytest.approx(scores[found.labels.index(label["label"])], abs=1e-3)
