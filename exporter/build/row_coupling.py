"""Whether the rows of a segment affect each other: the rule says where they may, runs say whether they do, and this says what follows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from contract.dtypes import Array
from contract.repository.model import Rows
from contract.repository.rows import LIMIT, QUICK, THOROUGH, Batches, RowsVerdict, Run, judge_rows
from exporter.errors import CoupledRows, ExportError, NotDeterministic, listed
from exporter.graph.coupling import Suspect
from exporter.sharing.plan import PlannedSegment

# Between batches of different sizes. Half precision and quantised networks then round otherwise, by some steps of many; what divides by
# the number of rows is found by the rule.
_SIZES = 500 * LIMIT
_COST = "one request is one run of it, without those of others, and its rows stay together"


@dataclass(frozen=True)
class Judgement:
    """What the repository records of a segment's rows, and what the user should know of it: a sentence, or nothing."""

    rows: Rows
    remark: str = ""


def judge(name: str, suspects: Sequence[Suspect], verdict: RowsVerdict, *, allowed: bool = False) -> Judgement:
    """Return what follows for the segment `name` from its `suspects` and from the `verdict` of its runs.

    allowed: rows may affect each other through anything. Raises NotDeterministic, and CoupledRows where that is not allowed.
    """
    wide, mixing, unknown = (_of_kind(suspects, kind) for kind in ("batch_wide", "mixes", "unknown"))
    if verdict.random():
        raise NotDeterministic(f"Segment {name!r}", unknown + mixing)
    if isnan(verdict.alone):
        remark = f"Segment {name}: no run gave a finite number, so whether rows affect each other is not known."
        return Judgement("coupled" if mixing or wide else "", remark)
    differ = not verdict.independent(sizes=_SIZES)
    by_size = not suspects and verdict.beside <= LIMIT  # no operator that could, no other rows that did: rounding, or nearly
    if differ and not (allowed or by_size) and (mixing or not wide):
        raise CoupledRows(name, mixing or unknown, max(verdict.alone, verdict.beside))
    if differ or wide:
        through = listed(mixing or wide or unknown) or ("how many they are" if by_size else "something that no rule found")
        return Judgement("coupled", f"Segment {name}: rows affect each other through {through}; {_COST}.")
    if mixing:
        meet = f"rows meet in {listed(mixing)}, though no run gave another answer for it"
        return Judgement("coupled", f"Segment {name}: {meet}; {_COST}.")
    if unknown:
        return Judgement(
            "independent", f"Segment {name}: rows do not affect each other, judged by runs alone ({listed(unknown)})."
        )
    return Judgement("independent")


@dataclass
class SegmentJudge:
    """Judges each of `segments` once, when it first runs. allowed: those whose rows may affect each other. found: by name, so far."""

    segments: Mapping[str, PlannedSegment]
    allowed: Collection[str] = ()
    found: dict[str, Judgement] = field(default_factory=dict)

    def look(self, name: str, run: Run, inputs: Sequence[Array]) -> None:
        """Judge the segment `name`, which `run` runs, with `inputs` that it meets. Raises what `judge` does, and what `run` raises."""
        if name in self.segments and name not in self.found:
            suspects = [*dict.fromkeys(suspect for block in self.segments[name].blocks for suspect in block.suspects)]
            quick = None if suspects else _verdict(run, inputs, QUICK)
            sure = quick if quick is not None and quick.independent(sizes=_SIZES) else _verdict(run, inputs, THOROUGH)
            self.found[name] = judge(name, suspects, sure, allowed=name in self.allowed)

    @property
    def rows(self) -> dict[str, Rows]:
        """Return what is to be recorded."""
        return {name: judgement.rows for name, judgement in self.found.items()}

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return what the user should know."""
        return tuple(judgement.remark for judgement in self.found.values() if judgement.remark)


def refuse_random(name: str, suspects: Iterable[Suspect]) -> None:
    """Raise NotDeterministic if one of `suspects` of the network `name` gives another result each time."""
    random = _of_kind(suspects, "random")
    if random:
        raise NotDeterministic(name, random)


def _verdict(run: Run, inputs: Sequence[Array], batches: Batches) -> RowsVerdict:
    try:
        return judge_rows(run, inputs, batches=batches)
    except ExportError:  # larger numbers may be places beyond the end of a table
        return judge_rows(run, inputs, scales=(1,), batches=batches)


def _of_kind(suspects: Iterable[Suspect], kind: str) -> list[str]:
    return [*dict.fromkeys(str(suspect) for suspect in suspects if suspect.kind == kind)]
