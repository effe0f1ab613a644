"""Measures the constants of `exporter.sharing.costs.CutCosts` on this machine: `python -m benchmarks.studies.cut_costs`.

Chains of convolutions are run as the embedded engine runs segments, whole and cut. Variants take turns, and a constant comes from
differences within a round, which a drift of the machine disturbs less.

- seconds per run: a chain of tiny convolutions, whole against in as many segments as it has convolutions.
- bytes per second: two convolutions on maps of several sizes, whole against cut in two: the slope over the bytes that are written and read
  at the cut. It contains the conversion to and from the layout in which ONNX Runtime computes convolutions.
- MACs per second: a trunk of 3x3 and 1x1 convolutions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.conv_chains import ConvChain, random_kernels, take_turns
from exporter.sharing.costs import CutCosts

_LINKS = 8
_CHANNELS = 32
_SIDES = (8, 32, 64, 96, 128)  # pixels; taps of 8 kB to 2 MB
_BATCHES = 10


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of a measured quantity."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasuredCosts:
    """The constants as in CutCosts, each with its spread, with `threads` threads (None: the cores of this process)."""

    seconds_per_run: Quartiles
    bytes_per_second: Quartiles
    macs_per_second: Quartiles
    threads: int | None

    @property
    def costs(self) -> CutCosts:
        """Return the medians as CutCosts."""
        return CutCosts(self.seconds_per_run.median, self.bytes_per_second.median, self.macs_per_second.median)


def _measure(rounds: int = 300, threads: int | None = None) -> MeasuredCosts:
    """Measure all three: `rounds` rounds, and a third of it for the larger networks."""
    fewer = max(_BATCHES, rounds // 3)
    return MeasuredCosts(
        _seconds_per_run(rounds, threads), _bytes_per_second(fewer, threads), _macs_per_second(fewer, threads), threads
    )


def _seconds_per_run(rounds: int, threads: int | None) -> Quartiles:
    chain = ConvChain(random_kernels(_LINKS, _CHANNELS, [1]), (_CHANNELS, 4, 4))
    seconds = take_turns({"whole": chain.runner(1, threads), "cut": chain.runner(_LINKS, threads)}, rounds)
    return _spread((seconds["cut"] - seconds["whole"]) / (_LINKS - 1))


def _bytes_per_second(rounds: int, threads: int | None) -> Quartiles:
    """Return the inverse slope of what a cut costs over the bytes that cross it; its spread over batches of rounds."""
    kernels = random_kernels(2, _CHANNELS, [1])
    chains = [ConvChain(kernels, (_CHANNELS, side, side)) for side in _SIDES]
    variants = {
        f"{segments} {index}": chain.runner(segments, threads) for index, chain in enumerate(chains) for segments in (1, 2)
    }
    seconds = take_turns(variants, rounds)
    extra = np.array([seconds[f"2 {index}"] - seconds[f"1 {index}"] for index in range(len(chains))])
    crossing = np.array([2 * 4 * _CHANNELS * side * side for side in _SIDES])
    batches = [np.median(batch, axis=1) for batch in np.array_split(extra, _BATCHES, axis=1)]
    return _spread(np.array([1 / np.polyfit(crossing, batch, 1)[0] for batch in batches]))


def _macs_per_second(rounds: int, threads: int | None) -> Quartiles:
    chain = ConvChain(random_kernels(8, 128, [3, 1]), (128, 28, 28))
    seconds = take_turns({"trunk": chain.runner(1, threads)}, rounds)
    return _spread(chain.macs / seconds["trunk"])


def _spread(values: NDArray[np.float64]) -> Quartiles:
    low, median, high = np.percentile(values, [25, 50, 75])
    return Quartiles(float(median), float(low), float(high))


def describe(measured: MeasuredCosts) -> str:
    """Return the constants as a table, and what they decide."""
    defaults = CutCosts()
    lines = [f"{'':20}{'median':>12}{'quartiles':>24}{'default':>12}"]
    for name, spread, unit, default in (
        ("seconds per run", measured.seconds_per_run, 1e-6, defaults.seconds_per_run),
        ("bytes per second", measured.bytes_per_second, 1e9, defaults.bytes_per_second),
        ("MACs per second", measured.macs_per_second, 1e9, defaults.macs_per_second),
    ):
        quartiles = f"{spread.low / unit:.1f} - {spread.high / unit:.1f}"
        prefix = "us" if unit < 1 else "G"
        lines.append(f"{name:20}{spread.median / unit:9.1f} {prefix:2}{quartiles:>24}{default / unit:9.1f} {prefix:2}")
    for name, costs in (("defaults", defaults), ("these", measured.costs)):
        lines.append(f"With {name}, {_decision(costs)}.")
    return "\n".join(lines)


def _decision(costs: CutCosts, tap_bytes: int = 401_408) -> str:
    """Say what a cut must save to be worth it: at the last taps of a ResNet-50 at 224 pixels (2048 x 7 x 7 numbers)."""
    seconds = costs.seconds_per_run + 2 * tap_bytes / costs.bytes_per_second
    return (
        f"a cut at a tap of {tap_bytes / 1e6:.1f} MB costs {seconds * 1e6:.0f} us: as much as "
        f"{seconds * costs.macs_per_second / 1e6:.1f} MMACs, or reading {seconds * costs.bytes_per_second / 1e6:.2f} MB of weights"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the constants and print them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, help="of ONNX Runtime; default: the cores of this process")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    measured = _measure(options.rounds, options.threads)
    print(json.dumps(asdict(measured), indent=2) if options.json else describe(measured))


if __name__ == "__main__":
    main()
