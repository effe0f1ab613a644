"""Writes the segments that come to a repository, and on request those that stay anew, where weights of theirs are stored several times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from filecmp import cmp
from pathlib import Path

from contract.repository import Repository, Segment
from contract.repository import model as repository_model
from contract.repository.write import Change, link_file
from exporter.build.analysis import Analysis, Progress
from exporter.build.describe import describe_segment
from exporter.build.repository_chains import RepositoryChains
from exporter.build.shared_weights import Held, SharedWeights, StoredWeights, held_by
from exporter.sharing.plan import PlannedSegment, SharingPlan


@dataclass(frozen=True)
class WrittenSegments:
    """Segments whose models have been written, to be recorded. again: those of them that were there; they compute what they did."""

    described: Mapping[str, Segment]
    again: frozenset[str]
    stored: StoredWeights


def write_segments(
    change: Change,
    plan: SharingPlan,
    analysis: Analysis,
    chains: RepositoryChains,
    max_batch_rows: int,
    progress: Progress,
    *,
    anew: bool = False,
) -> WrittenSegments:
    """Write into `change`, where the segments that stay are kept already, those of `plan` that come.

    anew: also those that stay, if weights that others hold, too, are inside of their models. Their files are replaced, and only in the
    next state: who has them open, or links, keeps what was there.
    """
    before = change.repository
    coming = {name: segment for name, segment in plan.segments.items() if name not in before.segments}
    staying = {name: segment for name, segment in plan.segments.items() if anew and _may_be_written(before, name)}
    held = held_by(before, chains.models)
    weights = analysis.shared_weights([*coming.values(), *staying.values()], _without(held, staying))
    again = {name: segment for name, segment in staying.items() if _gets_files(before.segments[name], weights)}
    for name in again:
        _clear(change, name)
    analysis.write_segments([*coming.values(), *again.values()], change.folder, weights, progress)
    described = {name: describe_segment(one, max_batch_rows, weights.of.get(name)) for name, one in coming.items()}
    described |= {name: replace(before.segments[name], weight_files=weights.of[name]) for name in again}
    if anew:
        _link_again(change, {**before.segments, **described})
    return WrittenSegments(described, frozenset(again), weights.stored)


def _may_be_written(before: Repository, name: str) -> bool:
    """Whether the segment `name` is there, and its digest has proved that its file computes what the plan says."""
    return name in before.segments and before.segments[name].digest_version == repository_model.DIGEST_VERSION


def _gets_files(segment: Segment, weights: SharedWeights) -> bool:
    return weights.of.get(segment.name, {}).keys() > segment.weight_files.keys()


def _without(held: Held, segments: Mapping[str, PlannedSegment]) -> Held:
    """Return `held` without what is inside of `segments`, which may be written."""
    inside = {digest: names - segments.keys() for digest, names in held.inside.items()}
    return replace(held, inside={digest: names for digest, names in inside.items() if names})


def _link_again(change: Change, segments: Mapping[str, Segment]) -> None:
    """Make one file of data files of one name and one content, which a copy of the repository has several times.

    That of the most names stays; the others are only deleted in the next state, and nothing is written through a link.
    """
    files: dict[str, list[Path]] = {}
    for name, segment in segments.items():
        for file in segment.weight_files:
            files.setdefault(file, []).append(change.folder / name / segment.version / file)
    for paths in files.values():
        there = sorted((path for path in paths if path.is_file()), key=lambda path: -path.stat().st_nlink)
        for path in there[1:]:
            if not path.samefile(there[0]) and cmp(path, there[0], shallow=False):
                path.unlink()
                link_file(there[0], path)


def _clear(change: Change, name: str) -> None:
    """Delete the files beside the model of the segment `name`; the old state keeps its own names of them."""
    for file in (change.folder / name / change.repository.segments[name].version).iterdir():
        file.unlink()
