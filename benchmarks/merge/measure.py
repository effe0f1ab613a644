"""The measurements of the merge benchmark. In each group all variants answer alike, or nothing is timed; then they take turns."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from benchmarks.framework.options import Runs
from benchmarks.harness.noise import Measurement, NoiseWatch, measure_quietly
from benchmarks.harness.timing import Timing, interleave, summarise
from benchmarks.merge import onnx_variants, torch_variants
from benchmarks.merge.device import TorchDevice, as_outputs
from benchmarks.merge.equality import Outputs, VariantsDisagree, check
from benchmarks.merge.grouped import group_blocks
from benchmarks.merge.streams import Streams, Subset, make_streams
from benchmarks.models.conv_chains import take_turns
from benchmarks.models.families import CLASSES, NetworkCache, TimmNetwork, parts_of
from benchmarks.models.synthetic import make_family

TORCH, ONNX = "torch", "ONNX Runtime"

_Times = Mapping[str, Timing]


@dataclass(frozen=True)
class Group:
    """Variants that took turns. where: the module or subset. difference: of their answers at most, as a share of the largest output.

    times: by variant, the ways to run the baseline first; None: they do not agree, as `wrong` says, and were not timed.
    """

    runtime: str
    where: str
    streams: int
    batch: int
    difference: float
    times: Measurement[_Times] | None
    wrong: str = ""

    def speedup(self, variant: str) -> float | None:
        """Return how many times faster than the baseline, as it was faster, `variant` is; None: not measured."""
        if self.times is None or variant not in self.times.value:
            return None
        times = self.times.value
        first = next(iter(times))
        baseline = min(timing.median_ms for name, timing in times.items() if name in (first, onnx_variants.SIDE_BY_SIDE))
        return baseline / times[variant].median_ms


class MergeBench:
    """Measures one ResNet. watch: for noise. folder: for the networks."""

    def __init__(self, network: TimmNetwork, cache: NetworkCache, device: TorchDevice, watch: NoiseWatch, folder: Path) -> None:
        self._network, self._device, self._watch, self._folder = network, device, watch, folder
        self._backbone, self._exporter = cache.backbone(network), cache.exporter(network)
        self._parts = parts_of(self._backbone.network)
        self._suffixes: dict[str, ort.InferenceSession] = {}  # tracing one takes seconds
        head = self._backbone.network.get_submodule("fc")
        assert isinstance(head, nn.Linear)
        self._head = head

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the names of the network's parts."""
        return tuple(self._parts)

    def two_tasks(self, subset: Subset, runs: Runs) -> Iterator[Group]:
        """Yield what two tasks that differ in `subset` and the head cost for one image: in torch, and in the engine."""
        where = " + ".join(subset)
        streams = self._streams(subset, 2)
        for module in (streams.prefix, streams.suffix, *sum(streams.tuned, ()), *streams.heads):
            self._device.place(module)
        variants = torch_variants.network_variants(streams, self._device.images(1, self._network.size))
        yield self._torch(where, 2, 1, variants, runs)
        self._backbone.network.cpu()
        rows = np.random.default_rng(0).integers(0, 256, (1, self._network.size, self._network.size, 3), dtype=np.uint8)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            family = make_family(self._backbone, [subset, subset], CLASSES, Path(folder), self._exporter)
            with onnx_variants.engine_variants(family, rows, self._device.threads) as (runner, engine):
                compared = {name: partial(_await, runner, run) for name, run in engine.items()}
                yield self._compare(ONNX, where, 2, 1, compared, lambda: runner.run(interleave(engine, runs.rounds, runs.warmup)))

    def suffix(self, first: str, streams: int, batch: int, runs: Runs) -> Iterator[Group]:
        """Yield what the frozen parts from `first` on cost for `streams` streams of `batch` rows each."""
        where = f"{first} to the head"
        suffix = nn.Sequential(*list(self._parts.values())[self.parts.index(first) :])
        shape = self._tap(first, 1).shape[1:]
        rows = [torch.randn((batch, *shape), generator=torch.Generator().manual_seed(seed)).relu() for seed in range(streams)]
        if first not in self._suffixes:
            (self._suffixes[first],) = onnx_variants.open_modules([suffix], rows[0], self._device.threads)
        onnx = onnx_variants.suffix_variants(self._suffixes[first], rows)
        yield self._compare(ONNX, where, streams, batch, onnx, lambda: _time(onnx, runs))
        self._device.place(suffix)
        placed = [row.to(self._device.name) for row in rows]
        yield self._torch(where, streams, batch, torch_variants.suffix_variants(suffix, placed), runs)
        suffix.cpu()

    def block(self, name: str, streams: int, batch: int, runs: Runs) -> Iterator[Group]:
        """Yield what one tuned block of `streams` streams costs for the `batch` rows that they share."""
        tuned = self._streams((name,), streams).tuned
        rows = self._tap(name, batch)
        onnx = onnx_variants.block_variants(tuned, group_blocks(tuned), rows, self._device.threads)
        yield self._compare(ONNX, name, streams, batch, onnx, lambda: _time(onnx, runs))
        for block in sum(tuned, ()):
            self._device.place(block)
        yield self._torch(name, streams, batch, torch_variants.block_variants(tuned, rows.to(self._device.name)), runs)
        self._backbone.network.cpu()

    def _streams(self, subset: Subset, count: int) -> Streams:
        return make_streams(self._parts, subset, self._head, count)

    def _tap(self, name: str, rows: int) -> torch.Tensor:
        """Return what the part `name` takes for `rows` random images, on the CPU."""
        before = nn.Sequential(*list(self._parts.values())[: self.parts.index(name)])
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return before(torch.randn((rows, 3, self._network.size, self._network.size), generator=generator))  # type: ignore[no-any-return]

    def _torch(self, where: str, streams: int, batch: int, variants: Mapping[str, torch_variants.Run], runs: Runs) -> Group:
        with self._device.settings():
            compared = {name: as_outputs(run) for name, run in variants.items()}
            timed = {name: self._device.timed(run) for name, run in variants.items()}
            return self._compare(TORCH, where, streams, batch, compared, lambda: _time(timed, runs))

    def _compare(
        self,
        runtime: str,
        where: str,
        streams: int,
        batch: int,
        variants: Mapping[str, onnx_variants.Run],
        time: Callable[[], _Times],
    ) -> Group:
        """Compare the answers of the variants, then time them."""
        try:
            share = check(f"{runtime}, {where}, {streams} streams of {batch} rows", variants)
        except VariantsDisagree as error:
            return Group(runtime, where, streams, batch, float("inf"), None, str(error))
        return Group(runtime, where, streams, batch, share, measure_quietly(time, self._watch))


def _await(runner: asyncio.Runner, run: onnx_variants.AsyncRun) -> Outputs:
    async def outputs() -> Outputs:
        return await run()

    return runner.run(outputs())


def _time(variants: Mapping[str, Callable[[], object]], runs: Runs) -> _Times:
    seconds = take_turns(dict(variants), runs.rounds, runs.warmup)  # type: ignore[arg-type]
    return {name: summarise(values.tolist()) for name, values in seconds.items()}
