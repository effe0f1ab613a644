"""How many rows a segment best takes at once on this machine: more are not always faster (caches), and fewer wait less.

Learnt by a short profile: 1, 2, 4, ... rows, until a budget of time is spent or more rows only make it worse. Segments of one shape (the
heads of a thousand tasks) have one profile. It can be kept in a file; it holds for this machine, version and number of threads only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime as ort

from serving.repository.model import Segment

Clock = Callable[[], float]

_REPETITIONS = 3
_AS_GOOD = 1.03  # seconds a row, over the best: no difference that could be told from noise
_WORSE = 1.15  # beyond it, larger runs are not tried
BUDGET_S = 0.1


def measure(
    run: Callable[[int], object], most: int, budget_s: float = BUDGET_S, clock: Clock = time.perf_counter
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


def efficient_rows(seconds: Mapping[int, float]) -> int:
    """Return the smallest number of rows that is as good as the best, by seconds a row. Raises ValueError when nothing was measured."""
    best = min(value / rows for rows, value in seconds.items())
    return min(rows for rows, value in seconds.items() if value / rows <= _AS_GOOD * best)


class RowLimits:
    """The efficient rows of segments. file: where they are kept, None: nowhere. threads: of a run."""

    def __init__(self, file: Path | None, threads: int, budget_s: float = BUDGET_S, clock: Clock = time.perf_counter) -> None:
        self._file = file
        self._clock = clock
        self._here = f"{_machine()}, {threads} threads"
        self._budget_s = budget_s
        self._known: dict[str, int] = _read(file).get(self._here, {})

    def limit(self, segment: Segment) -> int:
        """Return the most rows for a run of `segment`: what was learnt of its shape, otherwise its own limit."""
        return min(segment.max_batch_rows, self._known.get(_shape(segment), segment.max_batch_rows))

    def learn(self, segment: Segment, run: Callable[[int], object]) -> None:
        """Profile `segment` unless its shape is known. run: runs so many rows of it."""
        if _shape(segment) not in self._known:
            self._known[_shape(segment)] = efficient_rows(measure(run, segment.max_batch_rows, self._budget_s, self._clock))

    def save(self) -> None:
        """Keep what is known, if there is a file; a file that cannot be written is no error, since it only saves time."""
        if self._file is None:
            return
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps({**_read(self._file), self._here: self._known}, indent=1))
            aside.replace(self._file)
        except OSError:
            return


def _timed(run: Callable[[int], object], rows: int, clock: Clock) -> float:
    started = clock()
    run(rows)
    return clock() - started


def _shape(segment: Segment) -> str:
    """Return what says how long a segment takes: its tensors, its arithmetic and its weights, not their values."""
    facts = [[spec.dtype, *spec.shape] for spec in (*segment.inputs, *segment.outputs)]
    text = json.dumps([facts, segment.macs, segment.parameters, segment.weight_bytes, segment.max_batch_rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, onnxruntime {ort.__version__}"


def _read(file: Path | None) -> dict[str, dict[str, int]]:
    """Return what `file` keeps, by machine; nothing where it is missing or damaged."""
    try:
        found = json.loads(file.read_text()) if file else {}
        return {
            str(here): {str(shape): int(rows) for shape, rows in known.items() if int(rows) >= 1} for here, known in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
