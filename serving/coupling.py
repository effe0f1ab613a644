"""Finds out by runs whether rows affect each other in segments whose configuration does not say: from before it was recorded, or not ours.

Until that is known they count as coupled: one request is one run. So do those with which the runs fail, or say nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from contract.dtypes import BYTES, Array
from contract.errors import EspalierError
from contract.plan import make_plan
from contract.repository.model import Repository, Rows, Segment
from contract.repository.reference import at_reference, has_reference
from contract.repository.rows import LIMIT, RowsVerdict, judge_rows
from contract.repository.sample import sample_inputs
from serving.engines.base import Call, Engine, SegmentRun
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.process.threads import to_thread

log = logging.getLogger(__name__)
_BUDGET_S = 30.0
_SIZES = 500 * LIMIT  # between batches of different sizes, which half precision, quantised networks and GPUs round otherwise
_SAMPLE_ROWS = 8  # as many as `judge_rows` takes
_MOST_NAMES = 5  # in a log line


@dataclass(frozen=True)
class _Finding:
    """rows: as of Segment. reason: why a request has to be one run."""

    rows: Rows
    reason: str = ""


class RowsCheck:
    """Checks the segments of `engine`. record: a file with the digests of those that were found to be independent; None: none is kept.

    budget_s: after so long no further check is begun at a load: each takes forty rows of a segment, those of a thousand tasks half an hour.
    """

    def __init__(self, engine: Engine, record: Path | None = None, budget_s: float = _BUDGET_S) -> None:
        self._engine = engine
        self._record = record
        self._budget_s = budget_s
        self._known: dict[str, _Finding] = {}  # by digest
        self._said: set[str] = set()

    async def judged(self, repository: Repository) -> Repository:
        """Return `repository`, whose segments are loaded, with their `rows` as far as they can be found out; log what that means."""
        return await to_thread(self._judged, repository)

    def _judged(self, repository: Repository) -> Repository:
        started = time.perf_counter()
        silent = {name: segment for name, segment in repository.segments.items() if not segment.rows and _has_rows(segment)}
        findings = self._find(repository, silent) if silent else {}
        segments = {
            name: replace(segment, rows=findings[name].rows) if name in findings else segment
            for name, segment in repository.segments.items()
        }
        if findings:
            passed = sum(finding.rows == "independent" for finding in findings.values())
            log.info(
                "Of %d segments the configuration does not say whether the rows of a batch affect each other; %d were found not to, "
                "and are batched as ever (%.1f s). Export the repository again, and it says so.",
                len(findings),
                passed,
                time.perf_counter() - started,
            )
        self._say_coupled(segments.values(), findings)
        return replace(repository, segments=segments)

    def _find(self, repository: Repository, silent: Mapping[str, Segment]) -> Mapping[str, _Finding]:
        """Return what is known of the segments `silent`, or what runs say now."""
        if not self._known:
            self._known = dict.fromkeys(_read(self._record), _Finding("independent"))
        unknown = {name: segment for name, segment in silent.items() if segment.digest not in self._known}
        found = self._try(repository, unknown)
        new = {unknown[name].digest: finding for name, finding in found.items() if unknown[name].digest and finding.rows}
        self._known |= new
        _add(self._record, (digest for digest, finding in new.items() if finding.rows == "independent"))
        return {name: found[name] if name in found else self._known[segment.digest] for name, segment in silent.items()}

    def _try(self, repository: Repository, unknown: Mapping[str, Segment]) -> dict[str, _Finding]:
        """Judge segments on what those before them give; where that says nothing, on rows of the right shape."""
        found: dict[str, _Finding] = {}
        end = time.perf_counter() + self._budget_s
        for flow in _flows(repository.exported, unknown):
            ready = flow.start()
            while ready and len(found) < len(unknown) and time.perf_counter() < end:
                work = ready.pop()  # the newest: what it takes is needed no longer than it has to
                segment, inputs = repository.segments[work.segment], work.inputs()
                if segment.name in unknown and segment.name not in found and (finding := self._judge(segment, inputs)).rows:
                    found[segment.name] = finding
                try:
                    results = self._engine.try_segment(segment, inputs)
                    ready += flow.finish(work, results, SegmentRun(segment.name, work.rows, 0.0))
                except EspalierError as error:
                    ready += flow.fail(work, error)
        for name, segment in unknown.items():
            if name not in found and not _has_sample(segment):
                found[name] = _NO_SAMPLE
            elif name not in found and time.perf_counter() < end:
                specs = at_reference(segment.inputs, segment.sizes)
                found[name] = self._judge(segment, list(sample_inputs(specs, _SAMPLE_ROWS).values()))
        return {name: found.get(name, _NO_TIME) for name in unknown}

    def _judge(self, segment: Segment, inputs: list[Array]) -> _Finding:
        run = partial(self._engine.try_segment, segment)
        try:
            try:
                return _finding(judge_rows(run, inputs))
            except EspalierError:  # larger numbers may be places beyond the end of a table
                return _finding(judge_rows(run, inputs, scales=(1,)))
        except Exception:  # whatever a model does with rows that it was not made for, the server lives on
            log.debug("Segment %r could not be checked.", segment.name, exc_info=True)
            return _Finding("", "it does not run on several rows")

    def _say_coupled(self, segments: Iterable[Segment], findings: Mapping[str, _Finding]) -> None:
        """Log once of each segment that it is not batched, and why."""
        new = [segment for segment in segments if segment.is_coupled and _has_rows(segment) and segment.name not in self._said]
        if not new:
            return
        self._said.update(segment.name for segment in new)
        marked = _Finding("coupled", "so its configuration says")
        names = [f"{segment.name!r} ({findings.get(segment.name, marked).reason})" for segment in new[:_MOST_NAMES]]
        more = f" and {len(new) - _MOST_NAMES} more" if len(new) > _MOST_NAMES else ""
        log.warning(
            "Rows of a batch may affect each other in segment %s%s: a request is one run there, with no other request in it, and is "
            "refused if it has more rows than a run may have.%s",
            ", ".join(names),
            more,
            _TRITON if self._engine.batches_elsewhere and any(segment.name in findings for segment in new) else "",
        )


_NO_TIME = _Finding("", "there was no time to check it")
_NO_SAMPLE = _Finding("", "it takes strings or tensors of any size, of which there is no sample to check it with")
_TRITON = " Triton goes by what their configuration says of batching; where that is wrong, export the repository again."


def _finding(verdict: RowsVerdict) -> _Finding:
    if verdict.independent(sizes=_SIZES):
        return _Finding("independent")
    if verdict.random():
        return _Finding("coupled", "it answers the same rows differently each time")
    if math.isnan(verdict.alone):
        return _Finding("", "its answers to sample rows are no numbers")
    if math.isnan(verdict.beside):
        return _Finding("coupled", "it does not give a row for each row")
    worst = max(verdict.alone, verdict.beside)
    return _Finding(
        "coupled", f"answers change by {worst:.2g} of their spread" if worst < math.inf else "answers change beyond measure"
    )


def _has_rows(segment: Segment) -> bool:
    return segment.plain is None or segment.plain.has_rows


def _has_sample(segment: Segment) -> bool:
    return all(spec.dtype != BYTES for spec in segment.inputs) and has_reference(segment.inputs, segment.sizes)


def _flows(repository: Repository, unknown: Mapping[str, Segment]) -> Iterator[PlanExecution]:
    """Yield flows of sample rows through the tasks, then the canaries, that need `unknown` segments: one for those of equal inputs."""
    canaries = {name: task.canary.task for name, task in repository.tasks.items() if task.canary is not None}
    for tasks in (repository.tasks, canaries):
        wanted = {name: task for name, task in tasks.items() if any(step.segment in unknown for step in task.steps)}
        for inputs in dict.fromkeys(task.inputs for task in wanted.values()):
            alike = {name: task for name, task in wanted.items() if task.inputs == inputs}
            plan = make_plan(replace(repository, tasks=alike), list(alike))
            first = next(iter(alike.values()))
            yield PlanExecution(plan, sample_inputs(at_reference(first.inputs, first.sizes), _SAMPLE_ROWS), Call(), 0)


def _read(record: Path | None) -> set[str]:
    """Return the digests in `record`; one that cannot be read only costs time."""
    with suppress(OSError, ValueError):
        return set(record.read_text(encoding="ascii").split()) if record else set()
    return set()


def _add(record: Path | None, digests: Iterable[str]) -> None:
    """Add a line for each of `digests`, in one write, so that those of several processes do not mix."""
    text = "".join(f"{digest}\n" for digest in digests)
    if record is None or not text:
        return
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a", encoding="ascii") as file:
            file.write(text)
