"""Reads task models one at a time and reduces each to its chain; the graphs stay in memory, their weights on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from contract.preprocessing import Preprocessing
from contract.repository import Repository
from contract.repository.not_shared import BACKBONE as BACKBONE  # instead of a task's name
from contract.repository.not_shared import NotShared
from contract.repository.write import model_path
from exporter.build.chains import beside, together
from exporter.build.describe import explain_output_names
from exporter.build.near_weights import Near, Reference, check_snap, find_near, find_scaled, within
from exporter.build.repository_chains import RepositoryChains
from exporter.build.rounded_weights import take_known_weights
from exporter.build.row_coupling import refuse_random
from exporter.build.shared_weights import Held, SharedWeights, plan_shared_weights, weights_of
from exporter.build.weight_store import WeightStore
from exporter.diff.diff import NEAR
from exporter.errors import BadModel, ExportError
from exporter.graph.chain import Block, Chain
from exporter.graph.difference import first_difference, nodes_of
from exporter.graph.extract import extract_segment
from exporter.graph.network import Network
from exporter.graph.passes.known_forms import KnownForms
from exporter.sharing.check import check_together, explain_sharing
from exporter.sharing.not_shared import SegmentGraph
from exporter.sharing.occurrence import Occurrence
from exporter.sharing.plan import PlannedSegment, PlannedStep, SharingPlan
from exporter.sharing.reasons import explain_computed_again
from exporter.sharing.reuse import Existing, Pattern, as_block
from exporter.sources.inputs import Chosen, RepositoryInput, explain_inputs, match_inputs, with_names
from exporter.sources.sandbox import canonical_form, guarded
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel
from exporter.sources.whole import WholeNetwork

Progress = Callable[[str, int, int], None]


class Analysis:
    """Task models, taken apart. `scratch`: a folder for the weights, large enough for all different ones.

    snap: networks take the weights of the backbone, or of the first task, where theirs differ by that at most. Raises BadSnap.
    """

    def __init__(self, scratch: Path, snap: float | None = None) -> None:
        check_snap(snap)
        self._snap = snap
        self.fixed: Collection[str] = ()  # networks that keep their weights in any case
        self.near: dict[str, Near] = {}  # that keep their own weights
        self.snapped: dict[str, Near] = {}  # that have taken others
        self.scaled: list[NotShared] = []
        self.store = WeightStore(scratch)
        self._forms = KnownForms(self.store.take_over)
        self.models: dict[str, TaskModel] = {}
        self.tasks: dict[str, Chain] = {}
        self.backbone: Chain | None = None
        self.levels = frozenset[str]()  # of the backbone, and those that are to stay
        self._given: dict[str, tuple[Path, tuple[int, ...]]] = {}
        self._networks: dict[str, Network] = {}
        self._alone: dict[str, Chain] = {}  # as blocks, whatever others there are
        self._there: RepositoryChains | None = None
        self._existing: dict[str, tuple[Chain, Preprocessing | None]] = {}
        self._inputs: dict[str, tuple[RepositoryInput, ...]] = {}
        self._chosen: Chosen = {}

    def adopt(self, repository_chains: RepositoryChains, repository: Repository) -> None:
        """Compare what will be read with the tasks of `repository`, which have been taken apart."""
        self._existing = {name: (chain, repository.tasks[name].preprocessing) for name, chain in repository_chains.alone.items()}
        self._there = repository_chains

    def read(self, sources: Sources, progress: Progress, inputs: Mapping[str, RepositoryInput] | None = None) -> None:
        """Read all of `sources` and check that they belong together. Raises ExportError.

        inputs: of the repository to which they come; None: those of what was adopted, if something was.
        """
        loaders: dict[str, LoadTaskModel] = {BACKBONE: sources.backbone} if sources.backbone else {}
        loaders |= sources.tasks
        for index, (name, load) in enumerate(loaders.items()):
            progress("Reading models", index, len(loaders))
            self._read_one(name, load())
        self._take_known_weights()
        self._match_inputs(sources.inputs, inputs if inputs is not None else self._there.inputs if self._there else {})
        for name, network in self._networks.items():
            with guarded(name):
                self._alone[name] = network.chain()
        self._compare_nearly()
        if BACKBONE in self._networks:
            self.levels |= self._networks[BACKBONE].levels
        self.tasks = self._chains()
        self.backbone = self.tasks.pop(BACKBONE, None)
        for name, chain in self._alone.items():
            if name == BACKBONE:
                continue
            refuse_random(name, (suspect for block in chain.blocks for suspect in block.suspects))
        progress("Reading models", len(loaders), len(loaders))
        alone = [chain for name, chain in self._alone.items() if name != BACKBONE]
        if alone:
            check_together(alone, self._alone.get(BACKBONE))

    def shared_weights(self, segments: Iterable[PlannedSegment], held: Held | None = None) -> SharedWeights:
        """Return which weights of `segments`, which are to be written, are stored once for several. held: by segments that stay."""
        parts = {one.name: self._networks[one.chain].part(one.inputs, one.outputs) for one in segments}
        return plan_shared_weights({name: weights_of(part.nodes) for name, part in parts.items()}, held)

    def segment_graphs(self, plan: SharingPlan, *, anew: bool = False) -> Iterator[SegmentGraph]:
        """Yield the segments of `plan`, those that come and those that stay. anew: all come, as far as cuts are concerned."""
        tasks: dict[str, dict[str, None]] = {}
        for version, steps in plan.tasks.items():
            for step in steps:
                tasks.setdefault(step.segment, {})[version.partition("@")[0]] = None
        for name, segment in plan.segments.items():
            stays = not anew and self._there is not None and name in self._there.networks
            if self._there is not None and stays:
                network, blocks = self._there.networks[name], self._there.patterns[name].blocks
                part = network.part()
            else:
                network, blocks = self._networks[segment.chain], segment.blocks
                part = network.part(segment.inputs, segment.outputs)
            yield SegmentGraph(name, tuple(tasks.get(name, ())), part, blocks, network.macs, None if stays else network.address)

    def write_segments(
        self, segments: Iterable[PlannedSegment], folder: Path, weights: SharedWeights, progress: Progress
    ) -> None:
        """Write the models of `segments` into the repository in `folder`, each from the network that the plan names."""
        segments = list(segments)
        for index, segment in enumerate(segments):
            progress("Writing segments", index, len(segments))
            network = self._networks[segment.chain]
            extracted = extract_segment(network.model, segment.name, segment.inputs, segment.outputs)
            weights.save(extracted, segment.name, model_path(folder, segment.name))
        progress("Writing segments", len(segments), len(segments))

    def digest_of(self, part: Occurrence) -> str:
        """Return the digest of the model that `part` is, or becomes."""
        first, *others = part.blocks
        if first.segment and not others:
            return first.digest
        return self._networks[part.chain].digest(part.taken, part.given)

    def existing(self, name: str, step: PlannedStep, segment: PlannedSegment) -> Existing:
        """Return `segment`, planned as a `step` of the task `name`, as one that is there."""
        network = self._networks[name]
        return Existing(as_block(step, segment), network.values_between(step.inputs, step.outputs), network.is_cheap)

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
        chains = {**self.tasks, **({BACKBONE: self.backbone} if self.backbone else {})} if self._there is None else self._alone
        known = self._existing | {name: (chains[name], self.models[name].preprocessing) for name in self.tasks}
        if self.backbone:
            known = {BACKBONE: (chains[BACKBONE], self.models[BACKBONE].preprocessing)} | self._existing
        remarks = {BACKBONE: self.models[BACKBONE].remark} if self.backbone and self.models[BACKBONE].remark else {}
        weights = {
            key: frozenset[bytes]().union(*(block.matrices for block in other.blocks)) for key, (other, _) in known.items()
        }
        for name in self.tasks:
            others = {key: other for key, other in known.items() if key != name}
            apart = {key for key, (other, _) in others.items() if self._has_weights_apart(name, other, weights[key])}
            reasons = (
                explain_sharing(chains[name], self.models[name].preprocessing, others, self._difference, apart),
                explain_computed_again(self.tasks[name]),
                explain_inputs(self._networks[name].inputs, self._inputs[name], self._chosen.get(name, {})),
                explain_output_names(name, [tap.name for tap in chains[name].outputs]),
                self.models[name].remark,
                *more.get(name, ()),
            )
            if any(reasons):
                remarks[name] = " It ".join(reason for reason in reasons if reason)
        return remarks

    def _has_weights_apart(self, name: str, other: Chain, weights: Collection[bytes]) -> bool:
        """Whether the network `name` uses one of the `weights` of `other` for something that it computes and `other` does not."""
        return any(
            not matrices.isdisjoint(weights) and not any(address in values for values in other.values)
            for address, matrices in self._networks[name].matrices
        )

    def _difference(self, ours: tuple[str, Block], theirs: tuple[str, Block]) -> str:
        """Return by which operator, or weight, two blocks of networks differ first; what the weights are, is read from disk."""
        return first_difference(*(nodes_of(self._network_of(name, block).model, block) for name, block in (ours, theirs)))

    def _network_of(self, chain: str, block: Block) -> Network:
        """Return the network whose graph computes `block` of the chain named `chain`."""
        there = self._there.places if self._there else {}
        return there.get((chain, block.index)) or self._networks[chain]

    def _read_one(self, name: str, model: TaskModel) -> None:
        file = model.file
        if name != BACKBONE:
            file = file or self._save_as_given(name, model.model)
            self._given[name] = file, _state_of(file)
        graph = canonical_form(name, model.model, file, self._forms)
        with self._keeping(name):
            self.store.take_over(graph)
        self.models[name] = replace(model, model=graph)

    def _take_known_weights(self) -> None:
        """Let networks take weights of each other, and of what is there, that are their own but for rounding.

        The backbone's come first, and the order of the tasks decides nothing.
        """
        names = sorted(self.models, key=lambda name: (name != BACKBONE, name))
        taken = take_known_weights(
            {name: self.models[name].model for name in names}, self._there.models.values() if self._there else ()
        )
        for name, model in self.models.items():
            if name in taken:
                remark = " It ".join(filter(None, (model.remark, taken[name].remark)))
                self.models[name] = replace(model, remark=remark)
            with guarded(name):
                self._networks[name] = Network(name, model.model)

    def _compare_nearly(self) -> None:
        """Find networks that are nearly the backbone, or the first task, and let them take its weights as far as they are to."""
        reference = self._reference()
        chains = [*self._alone.values(), *(chain for chain, _ in self._existing.values())]
        counts = Counter(digest for chain in chains for digest in {block.digest for block in chain.blocks})
        shared = {digest for digest, count in counts.items() if count > 1}
        for name, network in self._networks.items():
            if reference is None or name == reference.name:
                continue
            near = find_near(name, self._alone[name].blocks, network.model, reference, shared, max(NEAR, self._snap or 0))
            scaled = find_scaled(name, self._alone[name].blocks, network.model, reference, shared)
            self.scaled += [scaled] if scaled is not None else []
            if near is None:
                continue
            taken = within(near, self._snap) if self._snap and name not in self.fixed else None
            if taken is None:
                self.near[name] = near
                continue
            taken.take()
            self.snapped[name] = taken
            with guarded(name):
                self._networks[name] = Network(name, network.model).fed([tap.address for tap in network.inputs])
                self._alone[name] = self._networks[name].chain()

        if self._snap and reference is not None:
            self._remark_what_took_nothing(reference.name, self._snap)

    def _remark_what_took_nothing(self, reference: str, snap: float) -> None:
        for name in self._networks.keys() - {BACKBONE, reference, *self.fixed, *self.snapped}:
            none = f"none of its blocks that no other network has differs by {snap:g} of the largest at most"
            remark = f"takes no weights of {reference}: {none}."
            self.models[name] = replace(self.models[name], remark=" It ".join(filter(None, (self.models[name].remark, remark))))

    def _reference(self) -> Reference | None:
        there = self._there
        if there is not None and BACKBONE not in self._networks:
            name = next(iter(there.alone))
            return Reference(
                name.partition("@")[0], there.alone[name].blocks, lambda block: there.places[name, block.index].model
            )
        first = BACKBONE if BACKBONE in self._networks else next(iter(self._networks), None)
        if first is None:
            return None
        return Reference(first, self._alone[first].blocks, lambda block: self._networks[first].model)

    def _match_inputs(self, chosen: Chosen, there: Mapping[str, RepositoryInput]) -> None:
        """Find out which inputs of the networks are one; the order of the tasks decides nothing."""
        names = sorted(self._networks, key=lambda name: (name != BACKBONE, name))
        self._chosen = chosen
        self._inputs = match_inputs({name: self._networks[name].inputs for name in names}, there, chosen)
        for name, found in self._inputs.items():
            self._networks[name] = self._networks[name].fed([one.address for one in found])

    def _save_as_given(self, name: str, model: ir.Model) -> Path:
        with guarded(name), self._keeping(name):
            self.store.take_over(
                model
            )  # before it is rewritten: what is left of it then would keep them, until Python looks for cycles
            return self.store.save(model, f"given-{len(self._given)}")

    @contextmanager
    def _keeping(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(f"The weights of {name} cannot be kept in {self.store.folder} ({error.strerror}).") from error

    def _chains(self) -> dict[str, Chain]:
        """Return the chain of every network, made for sharing with the others and with what is there."""
        return {name: with_names(chain, self._inputs[name]) for name, chain in self._split().items()}

    def _split(self) -> dict[str, Chain]:
        if self._there is None:
            # Where one network is cut, all are, so that they share what they have in common on other tensors.
            levels = (network.levels for network in self._networks.values())
            return together(self._networks, frozenset[str]().union(*levels) if self.levels else ())
        coming = {name: network for name, network in self._networks.items() if name != BACKBONE}
        chains = beside(coming, self._there.existing, self._there.patterns)
        return {name: chains.get(name, self._alone[name]) for name in self._networks}

    def beside(self, names: Collection[str], existing: Sequence[Existing], patterns: Mapping[str, Pattern]) -> list[Chain]:
        """Return the chains of the networks `names`, made for using the segments `existing`, whose blocks are `patterns`."""
        return [*beside({name: self._networks[name] for name in names}, existing, patterns).values()]


def _state_of(file: Path) -> tuple[int, ...]:
    """Return what changes when `file` is written again or deleted."""
    if not file.exists():
        return ()
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
