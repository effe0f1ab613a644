"""The tables, the plots and the one sentence of what was measured of a repository."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from benchmarks.framework.result import Cell, Column, Plot, Series, Table, Unit
from benchmarks.harness.timing import Timing
from benchmarks.models.compared import SHARED
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.repository.case import Case
from benchmarks.repository.choice import ALL, ONE, Choice
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.other_engines import EngineTimes
from contract.repository import Repository
from contract.units import human_bytes

_NOISE = Column("noise", "")
_WHICH = (Column("request", "request for"), Column("tasks", "tasks", Unit.number))


@dataclass(frozen=True)
class Found:
    """What was measured. whole: the repository; part: with the tasks alone that were measured. first: the engine of `cases`."""

    whole: Repository
    part: Repository
    choice: Choice
    cases: tuple[Case, ...]
    first: EngineChoice
    others: tuple[EngineTimes, ...]

    @property
    def widest(self) -> Case:
        """Return the request for the most tasks."""
        return self.cases[-1]


def headline(found: Found) -> str:
    """Return the one sentence to remember."""
    case = found.widest
    shared, separate = (case.timing(variant) for variant in (SHARED, case.baseline))
    assert shared is not None
    assert separate is not None
    name = found.whole.path.resolve().name
    if case.asked.kind == ONE:
        sentence = (
            f"{name}: a request for {case.asked.tasks[0]} takes {_ms(shared)} by segments and {_ms(separate)} as one "
            "network; one request asks for no two of its tasks, so that nothing is shared."
        )
    else:
        how = "one after another" if case.baseline == SEPARATE else "side by side"
        sentence = (
            f"{name}: {len(case.asked.tasks)} tasks take {_ms(shared)} in one request and {_ms(separate)} as separate "
            f"networks {how}, {case.speedup:.1f} times as long{_of_possible(case)}{_of_memory(case)}."
        )
    noisy = sum(one.times.noisy for one in found.cases)
    return f"{sentence} While {noisy} of {len(found.cases)} requests were measured, the machine was noisy." if noisy else sentence


def _ms(timing: Timing) -> str:
    return f"{timing.median_ms:.{1 if timing.median_ms >= 10 else 2}f} ms"


def _of_possible(case: Case) -> str:
    return "" if case.share is None else f": {case.share:.0%} of the {case.possible:.2f} times that the arithmetic allows"


def _of_memory(case: Case) -> str:
    if case.memory is None:
        return ""
    shared, separate = (human_bytes(size) for size in case.memory)
    return f". They take {shared} of memory, and {separate} as separate networks"


def tables(found: Found) -> tuple[Table, ...]:
    """Return the tables, the main one first."""
    made = [_speedups(found), _times(found), _engines(found), _tasks(found)]
    if any(case.memory or case.disk for case in found.cases):
        made.insert(2, _sizes(found))
    return tuple(made)


def plots(found: Found) -> tuple[Plot, ...]:
    """Return the time of a request over the number of its tasks; nothing where one number alone was measured."""
    cases = _one_of_each(found)
    if len(cases) < 2:
        return ()
    series = []
    for variant in (SHARED, SEPARATE, SIDE_BY_SIDE):
        there = [(len(case.asked.tasks), timing) for case in cases if (timing := case.timing(variant)) is not None]
        if there:
            series.append(Series.of_timings(variant, [tasks for tasks, _ in there], [timing for _, timing in there]))
    name = found.whole.path.resolve().name
    detail = "Of one task, the one with the middle own part; medians of runs in turn, with quartiles."
    return (Plot(f"repository-{name}-time", f"{name}: one request", detail, "tasks", "milliseconds", tuple(series)),)


def _one_of_each(found: Found) -> list[Case]:
    alone = [case for case in found.cases if case.asked.kind == ONE]
    return [alone[len(alone) // 2], *(case for case in found.cases if case.asked.kind != ONE)]


def _row(case: Case) -> dict[str, Cell]:
    names = case.asked.tasks
    return {
        "request": names[0] if case.asked.kind == ONE else "all" if case.asked.kind == ALL else "some",
        "tasks": len(names),
        "possible": case.possible,
        "speedup": case.speedup,
        "share": case.share,
        "share_one_after_another": case.share_one_after_another,
        "baseline": case.baseline,
        **case.times.cells,
        **{variant: case.timing(variant) for variant in (SHARED, SEPARATE, SIDE_BY_SIDE)},
    }


def _speedups(found: Found) -> Table:
    columns = (
        *_WHICH,
        Column("possible", "possible", Unit.ratio),
        Column("speedup", "measured", Unit.ratio),
        Column("share", "share of the possible", Unit.share),
        Column("share_one_after_another", "the same over one after another", Unit.share),
        Column("baseline", "over"),
        _NOISE,
    )
    caption = (
        "Speed-up over the same tasks as separate networks, one after another or side by side, whichever is faster. Possible: their MACs "
        "over those of the shared request."
    )
    return Table("Speed-up", columns, tuple(map(_row, found.cases)), caption)


def _times(found: Found) -> Table:
    columns = (*_WHICH, *(Column(variant, variant, Unit.ms) for variant in (SHARED, SEPARATE, SIDE_BY_SIDE)), _NOISE)
    runs = len(found.widest.times.value.seconds[SHARED])
    caption = f"One request, median (quartiles) of {runs} runs in turn. A single network has nothing to run side by side with."
    return Table("Time of one request", columns, tuple(map(_row, found.cases)), caption)


def _sizes(found: Found) -> Table:
    columns = (
        *_WHICH,
        Column("memory", "memory, shared", Unit.bytes),
        Column("separate_memory", "memory, separate", Unit.bytes),
        Column("memory_ratio", "ratio", Unit.ratio),
        Column("disk", "disk, shared", Unit.bytes),
        Column("separate_disk", "disk, separate", Unit.bytes),
        Column("disk_ratio", "ratio", Unit.ratio),
    )
    rows = []
    for case in found.cases:
        if case.memory or case.disk:
            (memory, separate_memory), (disk, separate_disk) = case.memory or (None, None), case.disk or (None, None)
            rows.append(
                {
                    **_row(case),
                    "memory": memory,
                    "separate_memory": separate_memory,
                    "memory_ratio": separate_memory / memory if memory and separate_memory else None,
                    "disk": disk,
                    "separate_disk": separate_disk,
                    "disk_ratio": separate_disk / disk if disk and separate_disk else None,
                }
            )
    caption = (
        "Memory: resident bytes beyond the bare process after one request, each in fresh processes with one thread. Disk: what these tasks "
        "need of the repository, and their composed networks."
    )
    return Table("Memory and disk", columns, tuple(rows), caption)


def _engines(found: Found) -> Table:
    most = len(found.widest.asked.tasks)
    columns = (
        Column("engine", "engine"),
        Column("precision", "precision"),
        Column("one", "one task", Unit.ms),
        Column("most", f"{most} tasks", Unit.ms),
        Column("faster", "times as fast", Unit.ratio),
        Column("sharing", "gained by sharing", Unit.ratio),
        Column("share", "share of the possible", Unit.share),
        Column("of_spread", "error over spread", Unit.share),
        Column("agreement", "same largest number", Unit.share),
        _NOISE,
    )
    rows = [_first_engine(found), *(_other_engine(other, found.widest.possible) for other in found.others)]
    if most == 1:
        rows = [{**row, "most": None} for row in rows]
    caption = (
        "The same segments by each engine that is installed, in turns with the first. Gained by sharing: over separate networks by the "
        "same engine, as they are faster. Error: root mean square of the difference from the first's answers, over their distance from "
        "their mean over requests of one row. Of other precisions the accuracy on your own data is what counts."
    )
    return Table("Engines and precisions", columns, tuple(rows), caption)


def _first_engine(found: Found) -> dict[str, Cell]:
    one, most = _one_of_each(found)[0], found.widest
    return {
        "engine": found.first.engine,
        "precision": found.first.precision,
        "one": one.timing(SHARED),
        "most": most.timing(SHARED),
        "faster": 1.0,
        "sharing": most.speedup,
        "share": most.share,
        "of_spread": None,
        "agreement": None,
        **most.times.cells,
    }


def _other_engine(other: EngineTimes, possible: float | None) -> dict[str, Cell]:
    deviation = other.deviation
    return {
        "engine": other.choice.engine,
        "precision": other.choice.precision,
        "one": other.timing(most=False),
        "most": other.timing(most=True),
        "faster": other.faster,
        "sharing": other.sharing,
        "share": other.sharing / possible if other.sharing and possible else None,
        "of_spread": deviation.of_spread if deviation and isfinite(deviation.of_spread) else None,
        "agreement": deviation.agreement if deviation else None,
        "rows": deviation.rows if deviation else None,
        **other.most.cells,
    }


def _tasks(found: Found) -> Table:
    columns = (
        Column("task", "task"),
        Column("own_segments", "own segments", Unit.number),
        Column("own_macs", "own compute", Unit.macs),
        Column("own_bytes", "own weights", Unit.bytes),
    )
    rows: tuple[dict[str, Cell], ...] = tuple(
        {"task": part.task, "own_segments": part.segments, "own_macs": part.macs, "own_bytes": part.weight_bytes}
        for part in found.choice.parts
    )
    caption = "What no other task of the repository runs. One multiply-add is one MAC; for one row, at the reference sizes."
    return Table("Tasks that were measured", columns, rows, caption)
