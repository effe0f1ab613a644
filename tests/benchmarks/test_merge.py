"""The merge benchmark: every way computes the same, and one that does not is found and not timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from benchmarks.framework.errors import NoSuchMeasurement
from benchmarks.framework.options import Options, Runs, Scale
from benchmarks.harness.noise import Measurement, NoiseWatch
from benchmarks.harness.timing import Timing
from benchmarks.merge.benchmark import run
from benchmarks.merge.cases import choose_cases, pairs_within_stages, single_blocks
from benchmarks.merge.device import TorchDevice, as_outputs
from benchmarks.merge.equality import TOLERANCE, VariantsDisagree, check, difference
from benchmarks.merge.grouped import group_blocks, split_streams
from benchmarks.merge.measure import Group, MergeBench
from benchmarks.merge.onnx_variants import SIDE_BY_SIDE
from benchmarks.merge.onnx_variants import block_variants as onnx_block_variants
from benchmarks.merge.streams import Streams, make_streams, tuned_copy
from benchmarks.merge.torch_variants import FORKED, GROUPED, SEPARATE, STACKED, block_variants, network_variants, suffix_variants
from benchmarks.models.families import CLASSES, NetworkCache, TimmNetwork, parts_of
from tuning.network.backbone import Backbone

BASIC = TimmNetwork("resnet18", 32, (), {"channels": [8, 8, 16, 16]})
BOTTLENECK = TimmNetwork("resnet26", 32, (), {"channels": [8, 8, 16, 16]})


@pytest.fixture(scope="module")
def network_cache(tmp_path_factory: pytest.TempPathFactory) -> NetworkCache:
    return NetworkCache(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module", params=[BASIC, BOTTLENECK], ids=lambda network: network.name)
def backbone(request: pytest.FixtureRequest, network_cache: NetworkCache) -> Backbone:
    network: TimmNetwork = request.param
    return network_cache.backbone(network)


def _streams(backbone: Backbone, subset: tuple[str, ...], count: int) -> Streams:
    head = backbone.network.get_submodule("fc")
    assert isinstance(head, nn.Linear)
    return make_streams(parts_of(backbone.network), subset, head, count)


def test_a_resnet50_has_the_subsets_of_the_protocol() -> None:
    with torch.device("meta"):
        parts = list(parts_of(timm.create_model("resnet50")))
    assert len(single_blocks(parts)) == 16
    assert len(pairs_within_stages(parts)) == 12
    assert pairs_within_stages(parts)[0] == ("layer1.0", "layer1.1")
    assert ("layer1.2", "layer2.0") not in pairs_within_stages(parts)


def test_words_choose_what_is_measured(tmp_path: Path) -> None:
    parts = ["stem", "layer3.0", "layer3.1", "layer4.0", "layer4.1", "pool"]
    everything = choose_cases(parts, Options(tmp_path))
    assert everything.subsets == (
        *(("layer3.0",), ("layer3.1",), ("layer4.0",), ("layer4.1",)),
        *(("layer3.0", "layer3.1"), ("layer4.0", "layer4.1")),
    )
    assert everything.suffixes == ("layer3.0", "layer4.0")
    two = choose_cases(parts, Options(tmp_path, only=("Two tasks",)))
    assert two.subsets == everything.subsets
    assert not two.suffixes
    assert not two.blocks
    several = choose_cases(parts, Options(tmp_path, only=("layer4.1", "suffix layer3")))
    assert several.subsets == (("layer4.1",), ("layer4.0", "layer4.1"))
    assert (several.suffixes, several.blocks) == (("layer3.0",), ("layer4.1",))
    with pytest.raises(NoSuchMeasurement, match=r"contains 'layer9'; there are two tasks layer3\.0, .*, block layer4\.1\."):
        choose_cases(parts, Options(tmp_path, only=("layer4", "layer9")))


def test_the_runs_are_those_of_the_scale_or_as_many_as_asked_for(tmp_path: Path) -> None:
    scales = Runs(300, 300), Runs(5, 2), Runs(2, 1)
    assert Options(tmp_path).runs_of(*scales) == Runs(300, 300)
    assert Options(tmp_path, runs=30).runs_of(*scales) == Runs(30, 10)
    assert Options(tmp_path, Scale.quick, runs=30).runs_of(*scales) == Runs(30, 2)
    assert Options(tmp_path, runs=1).runs_of(*scales) == Runs(1, 1)


@pytest.mark.slow
def test_what_was_not_chosen_is_neither_measured_nor_shown(tmp_path: Path) -> None:
    result = run(Options(tmp_path, Scale.tiny, threads=1, only=("block",), runs=3))
    (table,) = result.tables
    assert table.title == "Tuned blocks"
    assert {row["apart"].runs for row in table.rows} == {3}  # type: ignore[union-attr]
    assert not result.plots
    assert "suffix" not in result.headline
    assert any("set by --runs: for two tasks 3 runs after 1" in note for note in result.notes)


def test_the_parts_are_the_network(backbone: Backbone) -> None:
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = nn.Sequential(*parts_of(backbone.network).values())(images)
        torch.testing.assert_close(backbone.network.get_submodule("fc")(features), backbone.network(images))


@pytest.mark.parametrize("subset", [("layer1.0",), ("layer3.0",), ("layer4.0", "layer4.1"), ("layer2.1",)], ids="+".join)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_ways_answer_alike(backbone: Backbone, subset: tuple[str, ...], batch: int) -> None:
    variants = network_variants(_streams(backbone, subset, 3), torch.randn((batch, 3, 32, 32)))
    assert list(variants) == [SEPARATE, FORKED, STACKED, GROUPED]
    outputs = {name: as_outputs(run) for name, run in variants.items()}
    assert check("test", outputs) < 1e-4
    streams = outputs[SEPARATE]()
    assert [stream.shape for stream in streams] == [(batch, CLASSES)] * 3
    assert difference(streams[1:], streams[:-1]) > TOLERANCE  # the tasks are not the same, so that mixing them up is found


def test_speedups_are_over_the_faster_way_to_run_separate_networks() -> None:
    times = {name: Timing(ms, ms, ms, 3) for name, ms in ((SEPARATE, 9.0), (SIDE_BY_SIDE, 8.0), (STACKED, 4.0))}
    group = Group("ONNX Runtime", "layer4.1", 2, 1, 0.0, Measurement(times, 0.0, 1))
    assert group.speedup(STACKED) == 2
    slower = replace(group, times=Measurement({**times, SIDE_BY_SIDE: Timing(10, 10, 10, 3)}, 0.0, 1))
    assert slower.speedup(STACKED) == 2.25
    assert group.speedup(FORKED) is None


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_two_tasks_are_measured_side_by_side_where_there_are_threads(
    tmp_path: Path, network_cache: NetworkCache, threads: int
) -> None:
    bench = MergeBench(BASIC, network_cache, TorchDevice("cpu", threads), NoiseWatch(lambda: 1.0), tmp_path)
    in_torch, in_onnx = bench.two_tasks(("layer4.1",), Runs(2, 1))
    assert in_torch.times is not None
    assert in_onnx.times is not None
    assert in_onnx.times.value.keys() - in_torch.times.value.keys() == ({SIDE_BY_SIDE} if threads > 1 else set())
    assert next(iter(in_onnx.times.value)) == SEPARATE


def test_streams_stay_apart_when_they_are_split() -> None:
    rows = torch.arange(2 * 6 * 1 * 1).reshape(2, 6, 1, 1)  # two rows, three streams of two channels
    assert split_streams(rows, 3).flatten(1).tolist() == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]


def test_what_differs_is_refused_with_both_names(backbone: Backbone) -> None:
    streams = _streams(backbone, ("layer4.1",), 2)
    images = torch.randn((1, 3, 32, 32))
    good = network_variants(streams, images)
    other = Streams(streams.prefix, (streams.tuned[0], (tuned_copy(streams.tuned[1][0], 7),)), streams.suffix, streams.heads)
    wrong = network_variants(other, images)[GROUPED]
    with pytest.raises(
        VariantsDisagree, match=r"'grouped blocks' differs from 'separate networks' by .* so that it was not timed"
    ):
        check("test", {SEPARATE: as_outputs(good[SEPARATE]), GROUPED: as_outputs(wrong)})


@pytest.mark.parametrize("found", [[np.ones((2, 3))], [np.ones((1, 3))] * 2, [np.full((1, 3), np.nan)], [np.ones((1, 3)) * 1.01]])
def test_other_shapes_numbers_and_nan_are_differences(found: list[np.ndarray]) -> None:
    expected = [np.ones((1, 3))]
    assert difference(expected, expected) == 0
    with pytest.raises(VariantsDisagree):
        check("test", {"a": lambda: expected, "b": lambda: found})


def test_suffixes_and_blocks_agree(backbone: Backbone) -> None:
    tuned = _streams(backbone, ("layer3.0",), 2).tuned
    rows = torch.randn((1, *_taken(backbone, "layer3.0"), 4, 4)).relu()
    assert check("test", {name: as_outputs(run) for name, run in block_variants(tuned, rows).items()}) < 1e-4
    suffix = nn.Sequential(*list(parts_of(backbone.network).values())[-2:])
    streams = [torch.randn((2, *_taken(backbone, "layer4.1"), 1, 1)) for _ in range(3)]
    assert check("test", {name: as_outputs(run) for name, run in suffix_variants(suffix, streams).items()}) < 1e-4


@pytest.mark.slow
def test_onnx_runtime_computes_what_torch_does(network_cache: NetworkCache) -> None:
    tuned = _streams(network_cache.backbone(BASIC), ("layer4.1",), 2).tuned
    rows = torch.randn((1, *_taken(network_cache.backbone(BASIC), "layer4.1"), 1, 1)).relu()
    in_torch = {name: as_outputs(run) for name, run in block_variants(tuned, rows).items()}
    in_onnx = onnx_block_variants(tuned, group_blocks(tuned), rows, threads=1)
    assert check("test", {**in_torch, **{f"onnx {name}": run for name, run in in_onnx.items()}}) < 1e-4


def _taken(backbone: Backbone, block: str) -> tuple[int]:
    """Return the channels that `block` takes."""
    return (backbone.network.get_submodule(block).get_submodule("conv1").in_channels,)  # type: ignore[return-value]


@pytest.mark.slow
def test_a_variant_that_is_wrong_is_not_timed(tmp_path: Path, network_cache: NetworkCache) -> None:
    bench = MergeBench(BASIC, network_cache, TorchDevice("cpu", 1), NoiseWatch(lambda: 1.0), tmp_path)
    timed = bench._torch("layer4.1", 1, 1, {"a": lambda: [torch.ones(1, 2)], "b": lambda: [torch.ones(1, 2)]}, Runs(3, 1))
    assert timed.times is not None
    assert timed.times.value["b"].runs == 3
    assert timed.speedup("a") == 1.0
    wrong = bench._torch("layer4.1", 1, 1, {"a": lambda: [torch.ones(1, 2)], "b": lambda: [torch.zeros(1, 2)]}, Runs(3, 1))
    assert wrong.times is wrong.speedup("b") is None
    assert "'b' differs from 'a'" in wrong.wrong
