"""Keeps how segments were found to be best run, so that the next start of a server need not run their samples again.

FILE, a line of JSON for each set of tasks that was tried: {"key", "ways": {segment: way}, "said": {segment: sentence}}. The key is a hash
of all that was compared, and of what compared it. A line that is damaged, or says what cannot be, is passed over.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.repository.model import Repository, Task
from serving.engines.cache_json import append_private, parse, read_private
from serving.engines.openvino.sample_walk import Way
from serving.engines.sessions.entries import processor

_FORMAT = 1  # to be raised when samples are compared otherwise, or a line holds something else
_TOO_LONG_BYTES = 4_000_000  # beyond it the file is begun anew


@dataclass(frozen=True)
class Verdict:
    """ways: of segments, by name. said: of those that are not run as was asked for, a sentence each."""

    ways: Mapping[str, Way]
    said: Mapping[str, str]


class Verdicts:
    """What was found out with samples. facts: what it depends on beside them: libraries, their versions, the precision.

    file: where it is kept; None: nowhere. It is found again for the same tasks with the same records, the same digests of their segments,
    and the same processor alone. Safe to use from several threads and processes.
    """

    def __init__(self, file: Path | None, facts: Sequence[str]) -> None:
        self._file = file
        self._facts = [*facts, processor()]
        self._lock = threading.Lock()

    def key(self, repository: Repository, tasks: Iterable[Task], small: Iterable[str], fixed: Mapping[str, Way]) -> str:
        """Return what the verdict on `tasks` is kept by; "" where none can be: the digest of a segment is not known.

        small: segments that are not tried on OpenVINO. fixed: how those are run that are served already.
        """
        tasks = list(tasks)
        segments = {step.segment: repository.segments[step.segment] for task in tasks for step in task.steps}
        if self._file is None or not tasks or not all(segment.digest for segment in segments.values()):
            return ""
        digests = {name: [segment.digest, segment.digest_version, segment.precision] for name, segment in segments.items()}
        said = [_said(task) for task in tasks]
        facts = [_FORMAT, self._facts, digests, said, sorted(small), {name: str(way) for name, way in fixed.items()}]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def find(self, key: str, segments: Iterable[str]) -> Verdict | None:
        """Return what was found out of `segments` under `key`; None: nothing that can be believed."""
        wanted = set(segments)
        for line in reversed(read_private(self._file).splitlines()) if key else ():
            verdict = _verdict(line, key)
            if verdict is not None and verdict.ways.keys() == wanted:
                return verdict
        return None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Keep `verdict` for later processes."""
        line = json.dumps({"key": key, "ways": dict(verdict.ways), "said": dict(verdict.said)}).encode() + b"\n"
        if key:
            with self._lock:
                append_private(self._file, line, _TOO_LONG_BYTES)


def _said(task: Task) -> list[object]:
    """Return of `task` what the comparison depends on."""
    specs = [asdict(spec) for spec in (*task.inputs, *task.outputs)]
    sizes = {name: asdict(size) for name, size in task.sizes.items()}
    record = None if task.parity is None else task.parity.to_json()
    return [
        task.name,
        len(task.inputs),
        specs,
        sizes,
        [asdict(step) for step in task.steps],
        bool(task.labels),
        task.scores,
        record,
    ]


def _verdict(line: bytes, key: str) -> Verdict | None:
    if key.encode() not in line:
        return None
    try:
        found = parse(line)
        if not isinstance(found, dict) or found["key"] != key:
            return None
        ways = {str(name): Way(way) for name, way in found["ways"].items()}
        said = {str(name): str(sentence) for name, sentence in found["said"].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return Verdict(ways, said)
