"""Reads the tasks of a repository back as chains, from the segments themselves: what is added is compared with what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

from contract.dtypes import onnx_dtype
from contract.repository import Repository, Segment, Task, TensorSpec
from contract.repository import model as repository_model
from contract.repository.free_sizes import FreeSize
from contract.repository.write import check_digest_version
from exporter.build.shared_weights import damaged_files
from exporter.build.weight_store import WeightStore
from exporter.errors import DamagedSegment, ExportError
from exporter.graph.chain import Block, Chain, Tap
from exporter.graph.digests import content_of
from exporter.graph.free.sizes import set_free_sizes
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise, typed
from exporter.sharing.occurrence import Place
from exporter.sharing.reuse import Existing, Pattern
from exporter.sources.inputs import RepositoryInput, inputs_of
from exporter.sources.onnx_file import load_onnx


@dataclass(frozen=True)
class RepositoryChains:
    """The tasks of a repository as chains: each block is a segment that a task uses.

    alone: the tasks as chains of blocks, whatever segments they are in. places: the graph of each of those blocks.
    existing: the segments where they are used, each after those whose outputs it takes. networks: the graph of each segment.
    digests: of the segments that tasks use, by their names, as they are computed today, whatever the repository records.
    unproved: of these, those of an older version that recorded another digest: they may be damaged.
    inputs: of all tasks.
    """

    chains: Mapping[str, Chain]
    alone: Mapping[str, Chain]
    places: Mapping[Place, Network]
    existing: Sequence[Existing]
    networks: Mapping[str, Network]
    digests: Mapping[str, str]
    unproved: frozenset[str] = frozenset()
    inputs: Mapping[str, RepositoryInput] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, ir.Model]:
        """Return the graph of each segment."""
        return {name: network.model for name, network in self.networks.items()}

    @cached_property
    def patterns(self) -> dict[str, Pattern]:
        """Return the blocks of each segment, on inputs of its own: where it is used, two of them may be one tensor."""
        chains = {name: network.chain() for name, network in self.networks.items()}
        return {name: Pattern(self.digests[name], chain.blocks, chain.inputs, chain.outputs) for name, chain in chains.items()}


def read_repository_chains(repository: Repository, store: WeightStore) -> RepositoryChains:
    """Return the tasks of `repository`, every digest being computed from the files.

    Raises DamagedSegment when a segment does not compute what its configuration says, as far as that is of today's version; NewerDigests.
    """
    check_digest_version(repository)
    reader = _Reader(repository, store)
    chains = {name: reader.chain(task) for name, task in repository.tasks.items()}
    unproved = frozenset(name for name, digest in reader.digests.items() if repository.segments[name].digest != digest)
    there = tuple(reader.existing.values())
    return RepositoryChains(chains, reader.alone, reader.places, there, reader.networks, reader.digests, unproved, reader.inputs)


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


_Use = tuple[str, tuple[str, ...]]  # a segment, and the addresses of what it takes


class _Reader:
    def __init__(self, repository: Repository, store: WeightStore) -> None:
        self._repository, self._store = repository, store
        self.inputs = inputs_of(repository.tasks.values())
        self.networks: dict[str, Network] = {}
        self.digests: dict[str, str] = {}
        self.existing: dict[_Use, Existing] = {}
        self.alone: dict[str, Chain] = {}
        self.places: dict[Place, Network] = {}
        self._applied: dict[_Use, Chain] = {}

    def chain(self, task: Task) -> Chain:
        """Put the task's chain together from its segments."""
        tensors = {spec.name: self.inputs[spec.name].address for spec in task.inputs}
        sources = frozenset(tensors)
        blocks: list[Block] = []
        values: set[str] = set()
        preprocessing = ""
        inner_blocks: list[Block] = []
        for step in task.steps:
            inner = tuple(name not in sources for name in step.inputs)
            use = step.segment, tuple(tensors[name] for name in step.inputs)
            found = self._apply(use, inner)
            applied = self._applied[use]
            preprocessing = preprocessing or ("" if all(inner) else applied.preprocessing)
            for block in applied.blocks:
                self.places[task.name, len(inner_blocks)] = self.networks[step.segment]
                inner_blocks.append(replace(block, index=len(inner_blocks)))
            blocks.append(replace(found.block, index=len(blocks)))
            values |= found.values
            tensors.update(zip(step.outputs, (tap.address for tap in found.block.outputs), strict=True))
        inputs, outputs = _taps(task.inputs, tensors, task.sizes), _taps(task.outputs, tensors, task.sizes)
        chain = Chain(task.name, tuple(blocks), inputs, outputs, preprocessing, values=(frozenset(values),))
        self.alone[task.name] = replace(chain, blocks=tuple(inner_blocks))
        return chain

    def _apply(self, use: _Use, inner: tuple[bool, ...]) -> Existing:
        if use not in self.existing:
            name, addresses = use
            network = self._network(name, inner).fed(addresses)
            recorded = self._repository.segments[name]
            block = replace(
                network.block(), digest=self.digests[name], segment=name, weight_bytes=recorded.weight_bytes, span=recorded.blocks
            )
            self.existing[use] = Existing(block, frozenset[str]().union(*network.values), network.is_cheap)
            self._applied[use] = network.chain()
        return self.existing[use]

    def _network(self, name: str, inner: tuple[bool, ...]) -> Network:
        if name not in self.networks:
            model = load_onnx(self._repository.network_file(name), linked=True)
            set_free_sizes(model, self._repository.segments[name].sizes)
            segment = self._repository.segments[name]
            is_of_today = segment.digest_version == repository_model.DIGEST_VERSION
            network = _as_written(model, segment, inner) if is_of_today else None
            network = network or Network(name, canonicalise(model, whole=False), inner=inner)
            self._store.take_over(network.model)
            self.networks[name], self.digests[name] = network, network.digest()
            if is_of_today and segment.digest != self.digests[name]:
                raise DamagedSegment(name, damaged_files(self._repository, name))
        return self.networks[name]


def _as_written(model: ir.Model, segment: Segment, inner: tuple[bool, ...]) -> Network | None:
    """Return the network of `segment` if its `model` is in canonical form, as the recorded digest tells; None if it is not."""
    try:
        network = Network(segment.name, typed(model), inner=inner)
        return network if network.digest() == segment.digest else None
    except ExportError:
        return None


def _taps(specs: Sequence[TensorSpec], addresses: Mapping[str, str], sizes: Mapping[str, FreeSize]) -> tuple[Tap, ...]:
    return tuple(
        Tap(spec.name, addresses[spec.name], onnx_dtype(spec.dtype), spec.shape, spec.axes, _known(spec, sizes)) for spec in specs
    )


def _known(spec: TensorSpec, sizes: Mapping[str, FreeSize]) -> dict[str, FreeSize]:
    return {name: sizes[name] for name in spec.axes if name}
