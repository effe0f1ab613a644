"""Reads task models one at a time and reduces each to its chain; the graphs stay in memory, their weights on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from contract.preprocessing import Preprocessing
from contract.repository import Repository
from contract.repository.write import model_path
from exporter.build.describe import explain_output_names
from exporter.build.repository_chains import RepositoryChains
from exporter.build.rounded_weights import take_known_weights
from exporter.build.row_coupling import refuse_random
from exporter.build.weight_store import WeightStore, save_with_weights
from exporter.errors import BadModel, ExportError
from exporter.graph.chain import Block, Chain, Network
from exporter.graph.difference import first_difference, nodes_of
from exporter.graph.digests import combined_digest
from exporter.graph.extract import extract_segment
from exporter.sharing.check import check_labels, check_together, explain_sharing
from exporter.sharing.plan import PlannedSegment
from exporter.sharing.segments import Place
from exporter.sources.sandbox import canonical_form, guarded
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel
from exporter.sources.whole import WholeNetwork

BACKBONE = "the backbone"  # instead of a task's name
Progress = Callable[[str, int, int], None]


class Analysis:
    """Task models, taken apart. `scratch`: a folder for the weights, large enough for all different ones."""

    def __init__(self, scratch: Path) -> None:
        self.store = WeightStore(scratch)
        self.models: dict[str, TaskModel] = {}
        self.tasks: dict[str, Chain] = {}
        self.backbone: Chain | None = None
        self._given: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._networks: dict[str, Network] = {}
        self._refined: set[str] = set()  # networks in which taps of others are taps, too
        self._existing: dict[str, tuple[Chain, Preprocessing | None]] = {}
        self._places: dict[Place, Network] = {}
        self._there: tuple[ir.Model, ...] = ()

    def adopt(self, repository_chains: RepositoryChains, repository: Repository) -> None:
        """Compare what will be read with the tasks of `repository`, which have been taken apart."""
        self._existing = {name: (chain, repository.tasks[name].preprocessing) for name, chain in repository_chains.chains.items()}
        self._there = tuple(repository_chains.models.values())
        self._places = {place: run.network for place, run in repository_chains.places.items()}

    def read(self, sources: Sources, progress: Progress) -> None:
        """Read all of `sources` and check that they belong together. Raises ExportError."""
        loaders: dict[str, LoadTaskModel] = {BACKBONE: sources.backbone} if sources.backbone else {}
        loaders |= sources.tasks
        for index, (name, load) in enumerate(loaders.items()):
            progress("Reading models", index, len(loaders))
            self._read_one(name, load())
        self._take_known_weights()
        chains = self._chains()
        self.backbone = chains.pop(BACKBONE, None)
        self.tasks = chains
        for name, chain in chains.items():
            check_labels(name, chain, self.models[name].labels)
            refuse_random(name, (suspect for block in chain.blocks for suspect in block.suspects))
        progress("Reading models", len(loaders), len(loaders))
        check_together([*(chain for chain, _ in self._existing.values()), *chains.values()], self.backbone)

    def write_segments(self, segments: Iterable[PlannedSegment], folder: Path, progress: Progress) -> None:
        """Write the models of `segments` into the repository in `folder`, each from the network that the plan names."""
        segments = list(segments)
        for index, segment in enumerate(segments):
            progress("Writing segments", index, len(segments))
            network = self._network_of(segment.chain, segment.blocks[0])
            extracted = extract_segment(network.model, segment.name, segment.inputs, segment.outputs)
            save_with_weights(extracted, model_path(folder, segment.name))
        progress("Writing segments", len(segments), len(segments))

    def digest_of(self, segment: PlannedSegment) -> str:
        """Return the digest that the file of `segment` has by itself: there, taps of other networks that need no cut are none."""
        if segment.chain not in self._refined:
            return segment.digest
        network = self._network_of(segment.chain, segment.blocks[0])
        extracted = extract_segment(network.model, segment.name, segment.inputs, segment.outputs)
        inner = segment.inputs[0].address not in {tap.address for tap in self.tasks[segment.chain].inputs}
        return combined_digest([block.digest for block in Network(segment.name, extracted, inner=inner).chain().blocks])

    def whole(self, name: str) -> WholeNetwork:
        """Return the network of the task `name` as it was given, before anything was rewritten in it.

        Raises BadModel when its file is another one by now.
        """
        file, state = self._given[name]
        if _state_of(file) != state:
            raise BadModel(file, "was changed or deleted while it was being exported; export it again.")
        graph = self.models[name].model.graph
        inputs, outputs = (tuple(str(value.name) for value in values) for values in (graph.inputs, graph.outputs))
        return WholeNetwork(file, inputs, outputs)

    def whole_in_canonical_form(self, name: str) -> WholeNetwork:
        """Return the network of the task `name` in canonical form. Raises ExportError when there is no room for it on disk."""
        with self._keeping(name):
            file = self.store.save(self.models[name].model, f"canonical-{[*self._given].index(name)}")
        return replace(self.whole(name), file=file, what="the whole network in canonical form")

    def remarks(self, more: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return, by task that was read, and of the backbone, what to know of it, in sentences that go on after that name.

        That is why it shares nothing, which outputs got other names, and what `more` says.
        """
        known = self._existing | {name: (chain, self.models[name].preprocessing) for name, chain in self.tasks.items()}
        if self.backbone:
            known = {BACKBONE: (self.backbone, self.models[BACKBONE].preprocessing)} | self._existing
        remarks = {BACKBONE: self.models[BACKBONE].remark} if self.backbone and self.models[BACKBONE].remark else {}
        for name, chain in self.tasks.items():
            others = {key: other for key, other in known.items() if key != name}
            reasons = (
                explain_sharing(chain, self.models[name].preprocessing, others, self._difference),
                explain_output_names(name, [tap.name for tap in chain.outputs]),
                self.models[name].remark,
                *more.get(name, ()),
            )
            if any(reasons):
                remarks[name] = " It ".join(reason for reason in reasons if reason)
        return remarks

    def _difference(self, ours: tuple[str, Block], theirs: tuple[str, Block]) -> str:
        """Return by which operator, or weight, two blocks of networks differ first; what the weights are, is read from disk."""
        return first_difference(*(nodes_of(self._network_of(name, block).model, block) for name, block in (ours, theirs)))

    def _network_of(self, chain: str, block: Block) -> Network:
        """Return the network whose graph computes `block` of the chain named `chain`."""
        return self._places.get((chain, block.index)) or self._networks[chain]

    def _read_one(self, name: str, model: TaskModel) -> None:
        if name != BACKBONE:
            file = model.file or self._save_as_given(name, model.model)
            self._given[name] = file, _state_of(file)
        graph = canonical_form(name, model.model)
        with self._keeping(name):
            self.store.take_over(graph)
        self.models[name] = replace(model, model=graph)

    def _take_known_weights(self) -> None:
        """Let networks take weights of each other, and of what is there, that are their own but for rounding.

        The backbone's come first, and the order of the tasks decides nothing.
        """
        names = sorted(self.models, key=lambda name: (name != BACKBONE, name))
        taken = take_known_weights({name: self.models[name].model for name in names}, self._there)
        for name, model in self.models.items():
            if name in taken:
                remark = " It ".join(filter(None, (model.remark, taken[name].remark)))
                self.models[name] = replace(model, remark=remark)
            with guarded(name):
                self._networks[name] = Network(name, model.model)

    def _save_as_given(self, name: str, model: ir.Model) -> Path:
        with guarded(name), self._keeping(name):
            return self.store.save_copy(model, f"given-{len(self._given)}")

    @contextmanager
    def _keeping(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(f"The weights of {name} cannot be kept in {self.store.folder} ({error.strerror}).") from error

    def _chains(self) -> dict[str, Chain]:
        """Return the chain of every network; taps of others that are on a side way of one are taps there, too."""
        chains = {name: self._chain(name) for name in self._networks}
        taps = {name: chain.taps for name, chain in chains.items()} | {name: c.taps for name, (c, _) in self._existing.items()}
        for name, network in self._networks.items():
            known = frozenset[str]().union(*(other for key, other in taps.items() if key != name)) - taps[name]
            if network.has_inside(known):
                chains[name] = self._chain(name, known)
                self._refined.add(name)
        return chains

    def _chain(self, name: str, known: Collection[str] = ()) -> Chain:
        with guarded(name):
            return self._networks[name].chain(known)


def _state_of(file: Path) -> tuple[int, ...]:
    """Return what changes when `file` is written again or deleted."""
    if not file.exists():
        return ()
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
