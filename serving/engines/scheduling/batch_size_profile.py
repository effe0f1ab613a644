"""How many rows a segment best takes at once on this machine: more are not always faster (caches), and fewer wait less.

Learnt by a short profile: 1, 2, 4, ... rows, until a budget of time is spent or more rows only make it worse. Segments of one shape (the
heads of a thousand tasks) have one profile. It can be kept in a file; it holds for this machine, version and number of threads only. A
profile during which the threads had to wait for cores that others had is not kept, but made again by the next process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from contract.private_folder import BY_ALL, is_private, make_private_folder
from contract.repository.model import Segment
from contract.repository.reference import at_reference, has_reference
from contract.system import machine_cores
from serving.engines.cache_json import parse, read_bounded

log = logging.getLogger(__name__)
_Clock = Callable[[], float]

_REPETITIONS = 3
_AS_GOOD = 1.03  # seconds a row, over the best: no difference that could be told from noise
_WORSE = 1.15  # beyond it, larger runs are not tried
_DISTURBED = 0.05  # of its time that a thread waited for a core
_BUDGET_S = 0.1


def measure(
    run: Callable[[int], object], most: int, budget_s: float = _BUDGET_S, clock: _Clock = time.perf_counter
) -> dict[int, float]:
    """Return the seconds of a run by its number of rows: 1, 2, 4, ... up to `most`, the best of a few each.

    run: runs so many rows. clock: seconds. budget_s: no size is begun that would end after it; 1 row is always measured.
    """
    seconds: dict[int, float] = {}
    end = clock() + budget_s
    rows = 1
    while rows <= most:
        last = next(reversed(seconds.values()), 0.0)
        if seconds and clock() + 2 * last * (_REPETITIONS + 1) > end:
            break
        run(rows)  # first runs of a size allocate
        seconds[rows] = min(_timed(run, rows, clock) for _ in range(_REPETITIONS))
        if seconds[rows] / rows > _WORSE * min(value / size for size, value in seconds.items()):
            break
        rows *= 2
    return seconds


def best_batch_size(seconds: Mapping[int, float]) -> int:
    """Return the smallest number of rows that is as good as the best, by seconds a row. Raises ValueError when nothing was measured."""
    best = min(value / rows for rows, value in seconds.items())
    return min(rows for rows, value in seconds.items() if value / rows <= _AS_GOOD * best)


class BatchSizeProfile:
    """The batch sizes of segments. file: where they are kept, None: nowhere. threads: of a run.

    waited: for how long, added up, threads of this process have waited for a core; by default nobody disturbs.
    runtime: what computes, and its version.
    """

    def __init__(
        self,
        file: Path | None,
        threads: int,
        budget_s: float = _BUDGET_S,
        clock: _Clock = time.perf_counter,
        waited: _Clock = lambda: 0.0,
        runtime: str = "",
    ) -> None:
        self._file = file
        self._clock = clock
        self._here = ", ".join(filter(None, (_machine(), runtime, f"{threads} threads, undisturbed")))
        self._budget_s = budget_s
        self._waited = waited
        self._threads = threads
        self._kept: dict[str, int] = self._read_kept().get(self._here, {})
        self._known = dict(self._kept)

    def limit(self, segment: Segment) -> int:
        """Return the most rows for a run of `segment`: what was learnt of its shape, otherwise its own limit."""
        return min(segment.max_batch_rows, self._known.get(_shape(segment), segment.max_batch_rows))

    def learn(self, segment: Segment, run: Callable[[int], object]) -> None:
        """Profile `segment` unless its shape is known. run: runs so many rows of it."""
        shape = _shape(segment)
        if shape in self._known:
            return
        begun, waited = self._clock(), self._waited()
        self._known[shape] = best_batch_size(measure(run, segment.max_batch_rows, self._budget_s, self._clock))
        lost = (self._waited() - waited) / self._threads
        if lost <= _DISTURBED * (self._clock() - begun):
            self._kept[shape] = self._known[shape]

    def save(self) -> None:
        """Keep what was learnt undisturbed, if there is a file; one that cannot be written is no error, since it only saves time."""
        if disturbed := len(self._known) - len(self._kept):
            log.info(
                "The rows of a run were learnt for %d kinds of segments while others worked on the same cores: they hold for this process, "
                "and are learnt again at the next start.",
                disturbed,
            )
        if self._file is None:
            return
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            if not make_private_folder(self._file.parent, BY_ALL):
                return
            aside.write_text(json.dumps({**self._read_kept(quiet=True), self._here: self._kept}, indent=1))
            aside.replace(self._file)
        except OSError:
            return

    def _read_kept(self, quiet: bool = False) -> dict[str, dict[str, int]]:
        """Return what the file keeps, by machine; nothing where there is none or, which is logged unless `quiet`, it is damaged."""
        try:
            return _read(self._file) if self._file is not None and is_private(self._file.parent, BY_ALL) else {}
        except OSError:
            return {}
        except ValueError as error:
            if not quiet:
                log.warning("%s is damaged (%s) and not used: what it kept is learnt again.", self._file, error)
            return {}


def _timed(run: Callable[[int], object], rows: int, clock: _Clock) -> float:
    started = clock()
    run(rows)
    return clock() - started


def _shape(segment: Segment) -> str:
    """Return what says how long a segment takes: its tensors, its arithmetic and its weights, not their values."""
    specs = (*segment.inputs, *segment.outputs)
    at_once = at_reference(specs, segment.sizes) if has_reference(specs, segment.sizes) else specs
    facts = [[spec.dtype, *spec.shape] for spec in at_once]
    text = json.dumps([facts, segment.macs, segment.parameters, segment.weight_bytes, segment.max_batch_rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {machine_cores()} cores"


def _read(file: Path) -> dict[str, dict[str, int]]:
    """Return what `file` keeps, by machine. Raises OSError, and ValueError unless it is one of ours."""
    found = parse(read_bounded(file))
    if not isinstance(found, dict) or not all(isinstance(known, dict) for known in found.values()):
        raise ValueError("not rows by machine and shape")
    if not all(type(rows) is int and rows >= 1 for known in found.values() for rows in known.values()):
        raise ValueError("not numbers of rows")
    return found
