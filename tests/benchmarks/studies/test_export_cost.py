from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from timm import create_model

from benchmarks.harness.stopwatch import Stopwatch
from benchmarks.models.vit_onnx import VitSize, write_vit
from benchmarks.studies.export.measure import main
from benchmarks.studies.export.planning_speed import make_chain, measure
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from exporter.sources.onnx_file import load_onnx

TINY = VitSize(depth=2, width=16, heads=2, patch=8, image=16, classes=3)


def test_a_stopwatch_counts_each_moment_once() -> None:
    watch = Stopwatch()
    with watch.phase("outer"):
        with watch.phase("inner"):
            pass
        with watch.phase("inner"):
            pass
    watch.switch("last")
    watch.switch(None)
    assert list(watch.phases) == ["outer", "inner", "last"]
    assert all(seconds.wall >= 0 and seconds.cpu >= 0 for seconds in watch.phases.values())


def test_the_transformer_is_split_at_every_residual(tmp_path: Path) -> None:
    path = write_vit(tmp_path / "vit.onnx", TINY)
    chain = Network("vit", canonicalise(load_onnx(path))).chain()
    width, tokens, depth = 16, 4, 2
    per_block = 2 * width + 2 * width + width * 3 * width + 3 * width + width * width + width + 8 * width * width + 5 * width
    weights = 3 * 64 * width + width + tokens * width + depth * per_block + 2 * width + width * 3 + 3
    numbers = 4 * depth  # a scale of attention and three of a GELU in each block
    assert sum(block.parameters for block in chain.blocks) == weights + numbers
    assert sum(block.end.shape == (tokens, width) for block in chain.blocks) >= 2 * depth
    assert ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_outputs()[0].shape == ["batch", 3]


def test_planning_is_measured_with_each_rule() -> None:
    costs = measure(tasks=3, blocks=5)
    assert [cost.rule for cost in costs] == ["cheap", "exact", "stages"]
    assert all(cost.segments >= 4 for cost in costs)  # a trunk and three heads
    same, other = make_chain("a", [0, 0, 0]).blocks, make_chain("b", [0, 1, 0]).blocks
    assert [a.digest == b.digest for a, b in zip(same, other, strict=True)] == [True, False, True]
    assert [a.end.address == b.end.address for a, b in zip(same, other, strict=True)] == [True, False, False]


@pytest.mark.slow
def test_an_export_is_measured_phase_by_phase(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--only",
        "export",
        "--network",
        "test_resnet",
        "--blocks",
        "layer4.0",
        "--size",
        "32",
        "--runs",
        "onnx:2",
        "--json",
    ]
    main(arguments)
    (cost,) = json.loads(capsys.readouterr().out)["export"]
    assert {"loading", "canonical form, digests, store", "planning", "writing", "parity check"} <= cost["phases"].keys()
    assert cost["largest"] > 4 * sum(weights.numel() for weights in create_model("test_resnet").parameters())
    assert cost["peak"] > cost["idle"] > 0


@pytest.mark.slow
def test_digesting_is_measured_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--only", "digest", "--only", "planning", "--depth", "1", "--plan-tasks", "2", "--plan-blocks", "3"])
    said = capsys.readouterr().out
    for step in ("load_onnx", "hash the weights", "split, block digests", "2 x 3 blocks, cheap"):
        assert step in said
