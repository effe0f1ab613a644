"""A dense family and a text family: compute, latency and memory, shared and separate.

Dense: three decoders (a mask, a depth, boxes) and four classifiers on one ResNet-50; the decoders take four levels of the frozen backbone,
two classifiers its last one, and two tune the last block. Text: six classifiers on one encoder of twelve layers, the last two of which
each task has for itself, with mask and token types, for texts of several lengths.

One request for all tasks, one at a time, in one process with the same number of threads; all variants take turns. "shared" is the embedded
engine as the server uses it, without a server around it. "separate" is an ONNX Runtime session for each network, one after another on all
threads; "separate, side by side" runs as many at a time as there are threads. "one graph" is a single ONNX model with all heads, each
shared tensor computed once. "torch" runs each whole network by itself, "torch, by hand" what one would write: each block once on what it
takes, with frozen blocks there once; both in inference mode, channels last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.families.variants import BY_HAND, ONE_GRAPH, SHARED, VARIANTS, Times, measure_family
from benchmarks.framework.errors import NoSuchNetwork
from benchmarks.framework.options import Options, Runs
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.noise import RULE, Measurement
from benchmarks.harness.timing import summarise
from benchmarks.memory.measure import separate_resident, shared_resident
from benchmarks.models.blocks import BlockFamily, count_macs, run_apart, run_together
from benchmarks.models.dense_family import DenseSize, dense_family
from benchmarks.models.families import RANDOM_WEIGHTS
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.models.synthetic import Family
from benchmarks.models.text_family import TextSize, text_family, texts
from contract.costs import Cost, separate_cost, shared_cost

_RUNS = Runs(30, 5), Runs(5, 1), Runs(2, 1)
_GOAL = 0.9
_CONVENTION = "One multiply-add is one MAC, and GFLOPs = 2 x GMACs. For one row, of texts at the repository's own length."
_TINY_RESNET = DenseSize("resnet18", 32, 8, {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]})
_TINY_TEXT = TextSize(layers=3, width=16, heads=2, words=50, most=16, tuned=1, tasks=2, classes=3)


@dataclass(frozen=True)
class _Case:
    """A family, and requests for it by what they are ("224 px", "64 tokens"); None: the input that the family comes with."""

    family: str
    make: Callable[[], BlockFamily]
    requests: Mapping[str, Mapping[str, Tensor] | None]


@dataclass(frozen=True)
class _Found:
    """What was measured of a case. possible: the speed-up that the arithmetic allows, whatever cuts there are.

    resident: bytes that all tasks take in a fresh process, shared and separate; None: not measured.
    """

    family: str
    what: str
    tasks: int
    possible: float
    shared: Cost
    separate: Cost
    times: Measurement[Times]
    resident: tuple[int, int] | None

    def speedup(self, other: str) -> float | None:
        """Return how many times as long `other` takes as the shared request; None where it was not measured."""
        seconds = self.times.value.seconds
        return median(seconds[other]) / median(seconds[SHARED]) if other in seconds else None

    @property
    def share(self) -> float:
        """Return the share of the possible that is reached over separate networks one after another."""
        return (self.speedup(SEPARATE) or 0.0) / self.possible


def run(options: Options) -> Result:
    """Measure the families of the scale, or those of `options.only` ("dense", "text"). Raises NoSuchNetwork."""
    found = [one for case in _chosen(options) for one in _measure(case, options)]
    return Result(
        _headline(found),
        (_latency(found), _times(found), _compute(found), *_memory(found)),
        tuple(_plots(found)),
        (RANDOM_WEIGHTS, *(" ".join(words.split()) for words in (__doc__ or "").strip().split("\n\n")[1:]), RULE),
        tuple(dict.fromkeys(one.times.value.wrong for one in found if one.times.value.wrong)),
        {"cases": [_raw(one) for one in found]},
    )


def _cases(options: Options) -> tuple[_Case, ...]:
    dense = options.pick(DenseSize(), DenseSize(), _TINY_RESNET)
    text = options.pick(TextSize(), TextSize(), _TINY_TEXT)
    lengths = options.pick((16, 32, 64, 128, 256), (16, 128), (8,))
    return (
        _Case("dense", partial(dense_family, dense), {f"{dense.size} px": None}),
        _Case("text", partial(text_family, text, lengths[0]), {f"{length} tokens": texts(text, length) for length in lengths}),
    )


def _chosen(options: Options) -> list[_Case]:
    cases = _cases(options)
    families = [case.family for case in cases]
    for word in options.only:
        if word not in families:
            raise NoSuchNetwork(word, families)
    return [case for case in cases if not options.only or case.family in options.only]


def _measure(case: _Case, options: Options) -> Iterator[_Found]:
    options.say(f"Making the {case.family} family")
    made = case.make()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        family = made.export(Path(folder))
        names = [*family.networks]
        costs = shared_cost(family.repository, names), separate_cost(family.repository, names)
        for what, request in case.requests.items():
            options.say(f"Measuring the {case.family} family with {what}")
            asked = replace(made, inputs=request or made.inputs)
            times = measure_family(asked, family, options, options.runs_of(*_RUNS))
            possible = count_macs(run_apart, asked) / count_macs(run_together, asked)
            resident = _resident(asked, family, Path(folder)) if what == [*case.requests][-1] else None
            yield _Found(case.family, what, len(names), possible, *costs, times, resident)


def _resident(asked: BlockFamily, family: Family, folder: Path) -> tuple[int, int]:
    feed = folder / "row.npz"
    rows: dict[str, Any] = {name: value.numpy() for name, value in asked.inputs.items()}
    np.savez(feed, **rows)
    return shared_resident(family.repository.path, feed=feed), separate_resident(family.networks.values(), feed=feed)


def _headline(found: list[_Found]) -> str:
    parts = []
    for family in dict.fromkeys(one.family for one in found):
        shares = [one.share for one in found if one.family == family]
        possible = [one.possible for one in found if one.family == family]
        parts.append(
            f"The {family} family reaches {_range(shares, '.0%')} of the {_range(possible, '.2f')} times that the arithmetic allows over "
            "separate networks one after another."
        )
    noisy = sum(one.times.noisy for one in found)
    return " ".join([*parts, *([f"While {noisy} of them were measured, the machine was noisy."] if noisy else [])])


def _range(values: list[float], how: str) -> str:
    low, high = format(min(values), how), format(max(values), how)
    return low if low == high else f"{low} to {high}"


_WHICH = (Column("family", "family"), Column("what", "input"), Column("tasks", "tasks", Unit.number))


def _row(found: _Found) -> dict[str, Cell]:
    seconds = found.times.value.seconds
    return {
        "family": found.family,
        "what": found.what,
        "tasks": found.tasks,
        "possible": found.possible,
        "speedup": found.speedup(SEPARATE),
        "share": found.share,
        "over_side": found.speedup(SIDE_BY_SIDE),
        "over_graph": found.speedup(ONE_GRAPH),
        "over_hand": found.speedup(BY_HAND),
        **found.times.cells,
        **{variant: summarise(seconds[variant]) if variant in seconds else None for variant in VARIANTS},
    }


def _latency(found: list[_Found]) -> Table:
    columns = (
        *_WHICH,
        Column("possible", "possible", Unit.ratio),
        Column("speedup", "measured", Unit.ratio),
        Column("share", "share of the possible", Unit.share),
        Column("over_side", "over side by side", Unit.ratio),
        Column("over_graph", "over one graph", Unit.ratio),
        Column("over_hand", "over torch by hand", Unit.ratio),
        Column("noise", ""),
    )
    caption = (
        "Possible: MACs of the networks one by one over those of a request by hand, by torch's counter. The goal is a share of "
        f"{_GOAL:.0%} over separate networks one after another. Over: how many times as long the other takes."
    )
    return Table("Speed-up", columns, tuple(map(_row, found)), caption)


def _times(found: list[_Found]) -> Table:
    columns = (*_WHICH, *(Column(variant, variant, Unit.ms) for variant in VARIANTS), Column("noise", ""))
    runs = len(found[0].times.value.seconds[SHARED])
    caption = f"One request for all tasks, median (quartiles) of {runs} runs in turn."
    return Table("Time of one request", columns, tuple(map(_row, found)), caption)


def _compute(found: list[_Found]) -> Table:
    columns = (
        *_WHICH,
        Column("separate_macs", "compute, separate", Unit.macs),
        Column("macs", "shared", Unit.macs),
        Column("fewer", "times fewer", Unit.ratio),
        Column("separate_bytes", "weights, separate", Unit.bytes),
        Column("bytes", "shared", Unit.bytes),
        Column("smaller", "times fewer", Unit.ratio),
    )
    rows = tuple(
        {
            **_row(one),
            "separate_macs": one.separate.macs,
            "macs": one.shared.macs,
            "fewer": one.separate.macs / one.shared.macs,
            "separate_bytes": one.separate.weight_bytes,
            "bytes": one.shared.weight_bytes,
            "smaller": one.separate.weight_bytes / one.shared.weight_bytes,
        }
        for one in found
    )
    return Table(
        "Compute and weights",
        columns,
        rows,
        "One multiply-add is one MAC, and GFLOPs = 2 x GMACs. For one row, of texts at the export's length.",
    )


def _memory(found: list[_Found]) -> Iterator[Table]:
    columns = (
        *_WHICH,
        Column("resident", "memory, shared", Unit.bytes),
        Column("separate_resident", "memory, separate", Unit.bytes),
        Column("ratio", "ratio", Unit.ratio),
    )
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {
            **_row(one),
            "resident": one.resident[0],
            "separate_resident": one.resident[1],
            "ratio": one.resident[1] / one.resident[0],
        }
        for one in found
        if one.resident
    )
    caption = "Resident bytes beyond the bare process after one request for all tasks, one process each, one thread."
    if rows:
        yield Table("Memory", columns, rows, caption)


def _plots(found: list[_Found]) -> Iterator[Plot]:
    possible = tuple(one.possible for one in found)
    speedups = tuple(one.speedup(SEPARATE) or 0.0 for one in found)
    bound = Series("all that is possible", (1.0, max(possible)), (1.0, max(possible)), style=Style.dashed)
    detail = "Each point is a family and an input."
    title = "How much of the possible speed-up is reached"
    series = (Series("families", possible, speedups, style=Style.marks), bound)
    yield Plot("families-share", title, detail, "speed-up by MACs", "measured speed-up", series)


def _raw(found: _Found) -> dict[str, object]:
    times = found.times
    return {
        "family": found.family,
        "what": found.what,
        "runs": times.runs,
        "drift": times.drift,
        "others": times.others,
        "seconds": dict(times.value.seconds),
    }
