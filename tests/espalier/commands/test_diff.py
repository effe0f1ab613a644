from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import save_file

from espalier.tables.diff import bar
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.wired import siamese

# each command tries its ONNX files out in a process of its own
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight")]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    family = {
        "first": Net(),
        "renamed": Net(prefix="other.", reverse_ties=True),
        "tuned": Net(blocks=(1, 2, 30, 4), head=7, prefix="other."),
        "deeper": Net(blocks=(1, 9, 2, 3, 4), classes=5, scale=1 / 127),
    }
    for name, net in family.items():
        net.save(folder / f"{name}.onnx")
    ir.save(siamese({"b3": 30}, 0), folder / "stranger.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "first.onnx").read_bytes()[:500])
    save_file({"fc.weight": np.zeros((3, 4), np.float32)}, folder / "tuned.safetensors")
    return folder


def said(text: str) -> str:
    return " ".join(text.split())


def test_equal_networks_get_one_sentence(networks: Path) -> None:
    run = espalier("diff", "first.onnx", "renamed.onnx", cwd=networks)
    assert (run.returncode, run.stdout) == (0, "All 6 blocks are equal; the networks compute the same.\n")
    assert espalier("diff", "first.onnx", "first.onnx", cwd=networks).stdout == run.stdout
    assert "first.onnx -> renamed.onnx" in espalier("diff", "first.onnx", "renamed.onnx", "--all", cwd=networks).stdout


def test_models_may_lie_anywhere(networks: Path) -> None:
    run = espalier("diff", f"{networks.name}/first.onnx", networks / "renamed.onnx", cwd=networks.parent)
    assert (run.returncode, run.stdout) == (0, "All 6 blocks are equal; the networks compute the same.\n")


def test_the_blocks_that_differ_are_listed_and_summed_up(networks: Path) -> None:
    run = espalier("diff", "first.onnx", "tuned.onnx", cwd=networks)
    rows = [row.split() for row in run.stdout.splitlines() if "2 of 2" in row]
    assert [row[:3] for row in rows] == [["3", "2", "160"], ["5", "head", "15"]]
    # Hand count: the stem and two of four blocks come before the first difference.
    stem, block, head = 36 * 4 * 27, 36 * 4 * (36 + 4), 4 * 3
    share = 100 * (stem + 2 * block) / (stem + 4 * block + head)
    assert f"4 of 6 blocks are equal; 2 and head differ; the networks share {share:.0f} % of their computation" in said(
        run.stdout
    )


def test_every_weight_can_be_listed(networks: Path) -> None:
    run = espalier("diff", "first.onnx", "tuned.onnx", "--weights", cwd=networks)
    for name in ("2.left", "2.right", "head.bias", "144 of 144"):
        assert name in said(run.stdout)


def test_another_architecture_is_reported(networks: Path) -> None:
    run = espalier("diff", "first.onnx", "deeper.onnx", cwd=networks)
    assert run.returncode == 0
    for words in ("only in B", "[4, 3] ->", "The preprocessing differs.", "4 of 6 and 7 blocks are equal", "share 0 %"):
        assert words in said(run.stdout)


def test_json_says_it_all(networks: Path) -> None:
    data = json.loads(espalier("diff", "first.onnx", "tuned.onnx", "--json", cwd=networks).stdout)
    assert [block["kind"] for block in data["blocks"]] == ["equal", "equal", "equal", "changed", "equal", "changed"]
    assert data["equal_blocks"] == 4
    assert data["blocks"][3]["modules"] == ["2"]
    assert data["blocks"][3]["weights"][0]["numbers_changed"] == 144
    resized = json.loads(espalier("diff", "first.onnx", "deeper.onnx", "--json", cwd=networks).stdout)["blocks"][-1]
    assert (resized["kind"], resized["relative_norm"]) == ("altered", None)
    assert resized["weights"][0]["other_shape"] == [4, 5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["first.onnx"], "Missing argument 'B'"),
        (["first.onnx", "missing.onnx"], "missing.onnx: there is no such file"),
        (["first.onnx", "truncated.onnx"], "truncated"),
        (["first.onnx", "tuned.safetensors"], "--backbone"),
        (["first.onnx", "stranger.onnx"], "no block of the same operators"),
        (["first.onnx", "tuned.onnx", "--preprocess", "maybe"], "in-graph or none"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(networks: Path, arguments: list[str], words: str) -> None:
    run = espalier("diff", *arguments, cwd=networks)
    assert run.returncode == 2
    assert words in said(run.stderr.replace("│", " "))
    assert "Traceback" not in run.stderr


def test_a_bar_is_full_at_the_most_and_never_invisible() -> None:
    assert bar(2.0, 2.0) == "█" * 8
    assert bar(1.0, 2.0) == "█" * 4
    assert bar(1e-9, 2.0) == "▏"
    assert [bar(0.0, 2.0), bar(None, 2.0), bar(float("inf"), 2.0)] == ["", "", ""]


def test_the_command_has_help() -> None:
    run = espalier("diff", "--help")
    assert run.returncode == 0
    assert "relative norm" in run.stdout
