"""Reads the tasks of a repository back as chains, from the segments themselves: what is added is compared with what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import onnx_ir as ir

from contract.dtypes import onnx_dtype
from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository import model as repository_model
from contract.repository.write import check_digest_version
from exporter.build.weight_store import WeightStore
from exporter.errors import DamagedSegment
from exporter.graph.chain import Block, Chain, Network, Tap
from exporter.graph.digests import combined_digest, content_of, source_address
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.plan import PlannedStep
from exporter.sharing.segments import Place
from exporter.sources.onnx_file import load_onnx


@dataclass(frozen=True)
class SegmentUse:
    """A segment where a task uses it: the blocks from `start` to before `stop` of the task's chain. network: its graph."""

    segment: str
    task: str
    start: int
    stop: int
    network: Network


@dataclass(frozen=True)
class RepositoryChains:
    """The tasks of a repository as chains, and where each segment is in them.

    digests: of the segments that tasks use, by their names, as they are computed today, whatever the repository records.
    unproved: of these, those of an older version that recorded another digest: they may be damaged.
    """

    chains: Mapping[str, Chain]
    runs: Sequence[SegmentUse]
    digests: Mapping[str, str]
    unproved: frozenset[str] = frozenset()

    @property
    def places(self) -> dict[Place, SegmentUse]:
        """Return for each block of each chain the run that it belongs to."""
        return {(run.task, index): run for run in self.runs for index in range(run.start, run.stop)}

    @property
    def models(self) -> dict[str, ir.Model]:
        """Return the graph of each segment."""
        return {run.segment: run.network.model for run in self.runs}

    @property
    def steps(self) -> dict[str, list[PlannedStep]]:
        """Return the steps of each task."""
        steps: dict[str, list[PlannedStep]] = {name: [] for name in self.chains}
        for run in self.runs:
            steps[run.task].append(PlannedStep.of(run.segment, self.chains[run.task].blocks[run.start : run.stop]))
        return steps


def read_repository_chains(repository: Repository, store: WeightStore) -> RepositoryChains:
    """Return the tasks of `repository`, every digest being computed from the files.

    Raises DamagedSegment when a segment does not compute what its configuration says, as far as that is of today's version; NewerDigests.
    """
    check_digest_version(repository)
    reader = _Reader(repository, store)
    reader.read_all()
    alone = reader.digests
    reader.refine()
    digests = reader.digests
    unproved = frozenset(
        name for name, digest in digests.items() if repository.segments[name].digest not in (digest, alone[name])
    )
    return RepositoryChains(reader.chains, tuple(reader.runs), digests, unproved)


def contents_of(repository: Repository, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the segments of `repository` apart, by their names; those that no task uses are among them.

    digests: as of RepositoryChains. A segment of an older version that no task uses has a content like none of today.
    """
    return {
        segment.name: content_of(
            digests.get(segment.name, _recorded(segment)), ((onnx_dtype(spec.dtype), spec.shape) for spec in segment.inputs)
        )
        for segment in repository.segments.values()
    }


def _recorded(segment: Segment) -> str:
    old = segment.digest_version != repository_model.DIGEST_VERSION
    return f"{segment.digest_version}:{segment.digest}" if old else segment.digest


def _digest_of(chain: Chain) -> str:
    return combined_digest([block.digest for block in chain.blocks])


def _is_one_line(chain: Chain) -> bool:
    """Whether a segment can be these blocks: nothing enters it or leaves it on the way."""
    first, last = chain.blocks[0], chain.blocks[-1]
    ends = {tap.address for tap in first.inputs} == {tap.address for tap in chain.inputs} and last.outputs == chain.outputs
    return ends and all(right.inputs == (left.end,) for left, right in pairwise(chain.blocks))


_Use = tuple[str, tuple[str, ...]]  # a segment, and the addresses of what it takes


class _Reader:
    def __init__(self, repository: Repository, store: WeightStore) -> None:
        self._repository, self._store = repository, store
        self._models: dict[str, ir.Model] = {}
        self._applied: dict[_Use, tuple[Network, Chain]] = {}
        self.chains: dict[str, Chain] = {}
        self.runs: list[SegmentUse] = []

    @property
    def digests(self) -> dict[str, str]:
        """Return the digests of the segments that have been read."""
        return {name: _digest_of(chain) for (name, _), (_, chain) in self._applied.items()}

    def read_all(self) -> None:
        """Put the chains of all tasks together from their segments."""
        self.chains, self.runs = {}, []
        for task in self._repository.tasks.values():
            self._read(task)

    def refine(self) -> None:
        """Let taps of one task that are inside of a segment of another be taps there, too, as they were when it was planned."""
        known = frozenset[str]().union(*(chain.taps for chain in self.chains.values()))
        uses: dict[str, list[_Use]] = {}
        for use in self._applied:
            uses.setdefault(use[0], []).append(use)
        for places in uses.values():
            found = {use: self._refined(use, known) for use in places}
            if all(_is_one_line(chain) for chain in found.values()) and len({_digest_of(chain) for chain in found.values()}) == 1:
                self._applied |= {use: (self._applied[use][0], chain) for use, chain in found.items()}
        self.read_all()

    def _refined(self, use: _Use, known: frozenset[str]) -> Chain:
        network, chain = self._applied[use]
        inside = known - chain.taps
        return network.chain(inside) if network.has_inside(inside) else chain

    def _read(self, task: Task) -> None:
        """Put the task's chain together from its segments."""
        sources = {spec.name: _source(spec, named=len(task.inputs) > 1) for spec in task.inputs}
        tensors = dict(sources)
        blocks: list[Block] = []
        preprocessing = ""
        for step in task.steps:
            inner = step.inputs[0] not in sources
            network, part = self._apply(step, tuple(tensors[name] for name in step.inputs), inner)
            preprocessing = preprocessing or ("" if inner else part.preprocessing)
            start = len(blocks)
            blocks += [replace(block, index=start + block.index) for block in part.blocks]
            self.runs.append(SegmentUse(step.segment, task.name, start, len(blocks), network))
            tensors.update(zip(step.outputs, (tap.address for tap in part.outputs), strict=True))
        inputs, outputs = _taps(task.inputs, tensors), _taps(task.outputs, tensors)
        self.chains[task.name] = Chain(task.name, tuple(blocks), inputs, outputs, preprocessing)

    def _apply(self, step: Step, inputs: tuple[str, ...], inner: bool) -> tuple[Network, Chain]:
        key: _Use = step.segment, inputs
        if key not in self._applied:
            network = Network(step.segment, self._model(step.segment), inputs, inner=inner)
            chain = network.chain()
            if self._is_old(step.segment) and not _is_one_line(chain):
                chain = network.chain_of_one()  # what is cut otherwise today is compared as a whole
            self._check_digest(step.segment, _digest_of(chain))
            self._applied[key] = network, chain
        return self._applied[key]

    def _check_digest(self, name: str, digest: str) -> None:
        """Raise DamagedSegment unless a segment's `digest` is the one that is recorded, or that is of an older version."""
        if not self._is_old(name) and digest != self._repository.segments[name].digest:
            raise DamagedSegment(name)

    def _is_old(self, name: str) -> bool:
        return self._repository.segments[name].digest_version < repository_model.DIGEST_VERSION

    def _model(self, segment: str) -> ir.Model:
        if segment not in self._models:
            self._models[segment] = canonicalise(load_onnx(self._repository.model_file(segment)))
            self._store.take_over(self._models[segment])
        return self._models[segment]


def _source(spec: TensorSpec, *, named: bool) -> str:
    return source_address(onnx_dtype(spec.dtype), spec.shape, spec.name if named else "")


def _taps(specs: Sequence[TensorSpec], addresses: Mapping[str, str]) -> tuple[Tap, ...]:
    return tuple(Tap(spec.name, addresses[spec.name], onnx_dtype(spec.dtype), spec.shape) for spec in specs)
