"""The other engine in bf16, and in fp32 beside it: measured where bf16 is asked for, in which ONNX Runtime has no kernels for the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from benchmarks.framework.result import Cell, Column, Table, Unit
from benchmarks.repository.engines import EngineChoice, find_engines
from benchmarks.repository.other_engines import EngineTimes

BF16 = "bf16"
MOST = 8  # tasks that the other engine is asked for at once


@dataclass(frozen=True)
class EngineCase:
    """A network, a fork and a number of tasks in another engine. possible: the speed-up by MACs."""

    network: str
    fork: str
    tasks: int
    possible: float
    times: EngineTimes


def other_engines(precisions: Sequence[str]) -> tuple[Sequence[EngineChoice], Sequence[str]]:
    """Return the engines to measure for `precisions`, and why others cannot be, a sentence each."""
    if BF16 not in precisions:
        return (), ()
    found, missing = find_engines(("openvino",))
    return found[1:], missing


def engine_tables(found: Sequence[EngineCase]) -> tuple[Table, ...]:
    """Return the table of what was measured; none where nothing was."""
    columns = (
        *(Column(key, key) for key in ("network", "fork")),
        Column("tasks", "tasks", Unit.number),
        Column("engine", "engine"),
        Column("precision", "precision"),
        Column("one", "one task", Unit.ms),
        Column("most", "all tasks", Unit.ms),
        Column("faster", "over ONNX Runtime", Unit.ratio),
        Column("sharing", "gained by sharing", Unit.ratio),
        Column("share", "share of the possible", Unit.share),
        Column("of_spread", "error over spread", Unit.share),
        Column("agreement", "same top 1", Unit.share),
        Column("noise", ""),
    )
    caption = (
        "The same segments, in turns with ONNX Runtime in fp32. Gained by sharing: over separate networks by the same engine and "
        "precision, as they are faster. Error: root mean square of the difference from ONNX Runtime's answers, over their distance from "
        "their mean over eight images."
    )
    return (Table("Other engines", columns, tuple(map(_row, found)), caption),) if found else ()


def _row(case: EngineCase) -> dict[str, Cell]:
    times, deviation = case.times, case.times.deviation
    return {
        "network": case.network,
        "fork": case.fork,
        "tasks": case.tasks,
        "engine": times.choice.engine,
        "precision": BF16 if times.choice.precision == BF16 else "fp32",
        "one": times.timing(most=False),
        "most": times.timing(most=True),
        "faster": times.faster,
        "sharing": times.sharing,
        "share": times.sharing / case.possible if times.sharing else None,
        "of_spread": deviation.of_spread if deviation and isfinite(deviation.of_spread) else None,
        "agreement": deviation.agreement if deviation else None,
        **times.most.cells,
    }
