"""What other precisions gain and cost, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.framework.options import FP32
from benchmarks.framework.result import Cell, Column, Table, Unit
from benchmarks.latency.case import LatencyCase
from benchmarks.latency.precision.quantise import __doc__ as how_quantised
from benchmarks.latency.precision.trained import ABOUT as ABOUT_TRAINED
from benchmarks.latency.precision.trained import Learnt
from benchmarks.latency.precision.variants import Precise, variant
from benchmarks.models.accuracy import Deviation
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, fastest

NOTES = (
    " ".join((how_quantised or "").split("\n\n")[1].split()),
    "Separate networks in another precision are the tasks' segments joined to one graph for each task. The images that ranges are "
    "calibrated on, and those that answers are compared on, are made by a seed.",
    "Networks with random weights give nearly the same answer to every image: their deviation says that the conversion works, and no more. "
    "What a precision costs in accuracy is known from your trained weights and your images only.",
)


@dataclass(frozen=True)
class PrecisionChange:
    """What a precision changes in a family beside its times. weight_bytes: of the shared repository; fp32_bytes: of the one in fp32."""

    network: str
    fork: str
    precision: str
    deviation: Deviation
    weight_bytes: int
    fp32_bytes: int


def precision_change(network: str, fork: str, family: Precise, fp32_bytes: int) -> PrecisionChange:
    """Return what the precision of `family` changes. fp32_bytes: weights of the same repository in fp32."""
    weights = sum(segment.weight_bytes for segment in family.repository.segments.values())
    return PrecisionChange(network, fork, family.precision, family.deviation, weights, fp32_bytes)


def precision_tables(
    found: Sequence[LatencyCase], changes: Sequence[PrecisionChange], learnt: Sequence[Learnt]
) -> tuple[Table, ...]:
    """Return tables of times, of answers and of trained tasks; none where nothing but fp32 was measured."""
    return tuple(table for table in (_times(found, changes), _answers(changes), _learnt(learnt)) if table.rows)


def _times(found: Sequence[LatencyCase], changes: Sequence[PrecisionChange]) -> Table:
    columns = (
        *(Column(key, key) for key in ("network", "fork")),
        Column("tasks", "tasks", Unit.number),
        Column("precision", "precision"),
        Column("shared", "shared", Unit.ms),
        *(Column(kind, kind, Unit.ms) for kind in (SEPARATE, SIDE_BY_SIDE)),
        Column("speedup", "gained by sharing", Unit.ratio),
        Column("shared_gain", "shared against fp32", Unit.ratio),
        Column("separate_gain", "separate against fp32", Unit.ratio),
        Column("noise", ""),
    )
    rows = [_row(one, precision) for one in found for precision in _precisions(one, changes)]
    caption = "Times of one request, in turn. Gains are those of the faster separate ones; a gain below 1 is a loss."
    return Table("Time in other precisions", columns, tuple(rows), caption)


def _precisions(one: LatencyCase, changes: Sequence[PrecisionChange]) -> tuple[str, ...]:
    others = tuple(change.precision for change in changes if (change.network, change.fork) == (one.network, one.fork))
    return (FP32, *others) if others else ()


def _row(one: LatencyCase, precision: str) -> Mapping[str, Cell]:
    seconds = {
        (kinds[0], of): _fastest_s(one.times.value.seconds, kinds, of)
        for kinds in (("shared",), (SEPARATE, SIDE_BY_SIDE))
        for of in (FP32, precision)
    }
    return {
        "network": one.network,
        "fork": one.fork,
        "tasks": one.tasks,
        "precision": precision,
        **{kind: one.timing(variant(kind, precision)) for kind in ("shared", SEPARATE, SIDE_BY_SIDE)},
        "speedup": seconds[SEPARATE, precision] / seconds["shared", precision],
        "shared_gain": seconds["shared", FP32] / seconds["shared", precision],
        "separate_gain": seconds[SEPARATE, FP32] / seconds[SEPARATE, precision],
        "noise": one.times.mark,
    }


def _fastest_s(seconds: Mapping[str, Sequence[float]], kinds: Sequence[str], precision: str) -> float:
    return median(seconds[fastest(seconds, [variant(kind, precision) for kind in kinds])])


def _answers(changes: Sequence[PrecisionChange]) -> Table:
    columns = (
        *(Column(key, key) for key in ("network", "fork", "precision")),
        Column("weight_bytes", "weights", Unit.bytes),
        Column("weight_share", "of fp32's", Unit.share),
        Column("of_size", "error over size", Unit.share),
        Column("of_spread", "error over spread", Unit.ratio),
        Column("agreement", "same top 1", Unit.share),
        Column("rows", "answers", Unit.number),
    )
    rows = [
        {**vars(one), **vars(one.deviation), "deviation": None, "weight_share": one.weight_bytes / one.fp32_bytes}
        for one in changes
    ]
    caption = (
        "Answers of the first tasks with random weights against those in fp32. Error: root mean square of the difference, over that of the "
        "answers (size), and over that of their distance from their mean over all images (spread). Weights: of the shared repository."
    )
    return Table("Answers in other precisions, random weights", columns, tuple(rows), caption)


def _learnt(learnt: Sequence[Learnt]) -> Table:
    columns = (
        Column("task", "task"),
        Column("precision", "precision"),
        Column("accuracy", "accuracy", Unit.share),
        Column("agreement", "same answer as fp32", Unit.share),
        Column("images", "test images", Unit.number),
    )
    return Table("Accuracy in other precisions, trained weights", columns, tuple(vars(one) for one in learnt), ABOUT_TRAINED)
