from __future__ import annotations

import json
from pathlib import Path

import pytest

from espalier.commands.tune.pricing import measure_ms
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.test_export import FAMILY, export
from tests.nets import tiny_vit
from tuning.network.backbone import save_backbone

pytestmark = pytest.mark.usefixtures("kept_traces")


def test_a_longer_network_takes_longer() -> None:
    short, long = Net(blocks=()).model(), Net(blocks=range(150)).model()
    assert 0 < measure_ms(short) < measure_ms(long)


def test_a_folder_that_is_missing_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    run = espalier("tune", "costs", "--backbone", "no-such-network", "--json", tmp_path / "nowhere" / "costs.json")
    assert run.returncode == 2
    assert "does not exist" in " ".join(run.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_costs_of_each_block_are_shown_and_written(tmp_path: Path) -> None:
    backbone = tiny_vit()
    save_backbone(backbone, tmp_path / "vit.safetensors")
    words = ("--backbone", tmp_path / "vit.safetensors", "--classes", "3", "--latency", "--json", tmp_path / "costs.json")
    run = espalier("tune", "costs", *words)
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in ("(head only)", *backbone.blocks, "added"))
    data = json.loads((tmp_path / "costs.json").read_text())
    head, *blocks = data["rows"]
    assert (head["block"], head["parameters"], head["added"]["macs"]) == (None, 3 * 33, 3 * 32)
    assert [row["block"] for row in blocks] == list(backbone.blocks)
    parameters = sum(parameter.numel() for parameter in backbone.network.get_submodule("blocks.0").parameters())
    assert {row["parameters"] for row in blocks} == {parameters}
    assert all(row["added"]["latency_ms"] > 0 for row in data["rows"])
    assert all(row["macs"] <= row["added"]["macs"] <= data["macs"] for row in blocks)


@pytest.mark.slow
def test_a_repository_of_another_backbone_gets_one_sentence(tmp_path: Path) -> None:
    save_backbone(tiny_vit(), tmp_path / "vit.safetensors")
    export(tmp_path / "repo", FAMILY)
    run = espalier("tune", "costs", "--backbone", tmp_path / "vit.safetensors", "--given", tmp_path / "repo")
    assert run.returncode == 2
    assert "has a block with the weights of this backbone" in run.stderr
    assert "Traceback" not in run.stderr
