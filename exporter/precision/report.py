"""What an export in int8 has to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contract.repository import Repository, Task
from contract.units import human_bytes, human_macs, listed
from exporter.precision.judge import Verdict


@dataclass(frozen=True)
class PrecisionReport:
    """verdicts: of the tasks that came in int8. remarks: what was assumed of their data. max_drop: what was allowed.

    sharing: what it costs that segments are there in either precision, a sentence, or "".
    """

    verdicts: tuple[Verdict, ...] = ()
    remarks: tuple[str, ...] = ()
    max_drop: float = 0.0
    sharing: str = ""


def explain_sharing(repository: Repository, tasks: Mapping[str, Task]) -> str:
    """Return what it costs that `tasks`, the current ones of `repository`, run the same segment in either precision; "" where none does."""
    used = {step.segment: None for task in tasks.values() for step in task.steps}
    twice = [name for name in used if (original := repository.segments[name].stands_for) in used and original]
    if not twice:
        return ""
    both = {repository.segments[name].stands_for for name in twice}
    fp32, int8 = (listed(_users(tasks.values(), names)) for names in (both, set(twice)))
    macs = human_macs(sum(repository.segments[name].macs for name in both))
    size = human_bytes(sum(repository.segments[name].weight_bytes for name in twice))
    number = f"{len(both)} of the segments {'is' if len(both) == 1 else 'are'}"
    return (
        f"{number} there in fp32 (for {fp32}) and in int8 (for {int8}): a request for all tasks computes {macs} more for that, and {size} "
        "more of weights are in memory."
    )


def _users(tasks: Iterable[Task], segments: set[str]) -> list[str]:
    return [task.name for task in tasks if not segments.isdisjoint(step.segment for step in task.steps)]
