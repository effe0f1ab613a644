"""What serving one more task would cost, before it is tuned.

The task is made up: the backbone with a new head, in which the blocks that hold tuned modules compute something else. It goes through the
planning that a real task goes through when it is exported or added, and the difference to what is served already is its price. So a
price says what `espalier add` will do, and counts as `espalier inspect` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from contract.repository import Repository
from exporter.build.chains import beside
from exporter.build.repository_chains import RepositoryChains, contents_of
from exporter.errors import DifferentInput, ExportError
from exporter.graph.chain import Chain, Tap, count_users
from exporter.graph.extract import extract_segment
from exporter.graph.network import Network
from exporter.pricing.combine_chains import combine_chains
from exporter.sharing.choose import CutOptions
from exporter.sharing.occurrence import Occurrence
from exporter.sharing.plan import PlannedStep, SharingPlan, digest_of_blocks, make_sharing_plan
from exporter.sharing.reuse import keep_segments
from exporter.sources.inputs import describe_rows, match_inputs
from exporter.sources.sandbox import canonical_form, guarded

_TO_COME = "the task to come"  # no name that a task can have
ExportTuned = Callable[[tuple[str, ...]], ir.Model]
MeasureMs = Callable[[ir.Model], float]


class SharesNothing(ExportError):
    """A repository whose tasks were tuned on another backbone."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"No task in {path} has a block with the weights of this backbone, so a new task would share nothing with them; "
            "give the backbone that they were tuned on."
        )


@dataclass(frozen=True)
class AddedCost:
    """What a task adds to one request for all tasks, and to what is stored and loaded.

    macs: multiply-accumulates for one image, of everything that the task runs and nothing else runs on the same input. Frozen blocks
    after a tuned one count: their input differs. weight_bytes: of the segments that come new; frozen blocks count where no segment
    that can be used as it is holds them. latency_ms: of the network after the fork, for one image; None where it was not measured.
    fork: the module after which the task leaves what is served, "" where it shares no computation.
    """

    macs: int
    weight_bytes: int
    latency_ms: float | None
    fork: str


@dataclass(frozen=True)
class Served:
    """What is served already: networks as chains, with the weight bytes of their segments by name.

    backbone: what is served alone, where `cuts` says how cuts are chosen for it and the task to come together. repository_chains: what is
    in a repository, whose segments stay as they are. there: the names of the repository's segments, with their contents.
    """

    stored: Mapping[str, int]
    cuts: CutOptions = field(default_factory=CutOptions)
    backbone: Network | None = None
    repository_chains: RepositoryChains | None = None
    there: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alone(cls, backbone: Network, cuts: CutOptions | None = None) -> Served:
        """Return a backbone that is served as it is and waits for its first task."""
        cuts = cuts or CutOptions()
        return cls(_weight_bytes(make_sharing_plan([backbone.chain()], options=cuts)), cuts, backbone)

    @classmethod
    def in_repository(cls, repository: Repository, repository_chains: RepositoryChains, backbone: Network) -> Served:
        """Return the tasks of `repository`. Raises SharesNothing or DifferentInput when a task of `backbone` has no place there."""
        chain = backbone.chain()
        digests = {
            block.digest for pattern in repository_chains.patterns.values() for block in pattern.blocks if block.parameters
        }
        if digests.isdisjoint(block.digest for block in chain.blocks):
            raise SharesNothing(repository.path)
        _fed_by(backbone, repository_chains)
        stored = {segment.name: segment.weight_bytes for segment in repository.segments.values()}
        return cls(stored, repository_chains=repository_chains, there=contents_of(repository, repository_chains.digests))

    def chain(self, network: Network) -> Chain:
        """Return the chain of the task to come, made for sharing with what is served."""
        if self.repository_chains is not None:
            network = _fed_by(network, self.repository_chains)
            return beside({network.name: network}, self.repository_chains.existing, self.repository_chains.patterns)[network.name]
        return network.chain(count_users([self._values, network.values]))

    def plan(self, new: Chain, network: Network | None = None) -> SharingPlan:
        """Return the sharing plan of what is served and `new`, the chain of `network` if there is one.

        Without a network, a segment that is there, but not used, is not found to be the same as one of the plan.
        """
        chains = [*self._beside(new), new]
        cuts = self.cuts if self.repository_chains is None else keep_segments(chains)

        def digest_of(part: Occurrence) -> str:
            return network.digest(part.taken, part.given) if network and part.chain == new.name else digest_of_blocks(part)

        return make_sharing_plan(chains, options=cuts, there=self.there, digest_of=digest_of)

    def _beside(self, new: Chain) -> tuple[Chain, ...]:
        if self.repository_chains is not None:
            return tuple(self.repository_chains.chains.values())
        return () if self.backbone is None else (self.backbone.chain(count_users([self._values, new.values])),)

    @property
    def _values(self) -> tuple[frozenset[str], ...]:
        return () if self.backbone is None else self.backbone.values

    def added_steps(self, plan: SharingPlan, new: Chain) -> list[PlannedStep]:
        """Return the steps of `new` that nothing else takes, in order."""
        taken = {_application(step) for name, steps in plan.tasks.items() if name != new.name for step in steps}
        return [step for step in plan.tasks[new.name] if _application(step) not in taken]

    def added_bytes(self, plan: SharingPlan) -> int:
        """Return how many more bytes of weights are stored with `plan`."""
        staying = {} if self.repository_chains is None else self.stored  # even what no task uses any more, until `espalier gc`
        return sum({**staying, **_weight_bytes(plan)}.values()) - sum(self.stored.values())


def _fed_by(network: Network, repository_chains: RepositoryChains) -> Network:
    """Return `network` with the repository's inputs for its own. Raises DifferentInput where it takes what no task there takes."""
    there = repository_chains.inputs
    (inputs,) = match_inputs({network.name: network.inputs}, there, {}).values()
    if not all(one.name in there for one in inputs):
        found = " and ".join(describe_rows(tap.rows) for tap in network.inputs)
        raise DifferentInput(found, [describe_rows(one.rows) for one in there.values()])
    return network.fed([one.address for one in inputs])


class Pricing:
    """Prices every task that could be tuned on one backbone.

    export(modules): the network with a new head, always the same one, whose `modules` hold weights of their own, as an ONNX model. It is
    called for each module that is priced, and once without any; what several cost together is put together from that, in milliseconds.
    measure: milliseconds of one run of a model on one row; None leaves latency out. It is called once for each place where tasks fork:
    latency depends on that, and hardly on which blocks behind it were tuned.
    """

    def __init__(self, export: ExportTuned, served: Served, measure: MeasureMs | None = None) -> None:
        self._export, self._served, self._measure = export, served, measure
        self._chains: dict[frozenset[str], Chain] = {}
        self._plans: dict[frozenset[str], SharingPlan] = {}
        self._latencies_ms: dict[str, float] = {}

    @property
    def macs(self) -> int:
        """Return the MACs of the whole network with the new head, for one image."""
        return self._chain(frozenset()).macs

    def price(self, modules: Iterable[str] = ()) -> AddedCost:
        """Return what a task adds that tunes `modules` and a new head; without any, a linear probe.

        Raises what `export` raises for a module that it does not know.
        """
        new = self._chain(frozenset(modules))
        plan = self._plans.get(frozenset(modules)) or self._served.plan(new)
        steps = self._served.added_steps(plan, new)
        fork = steps[0].inputs[0]
        macs = sum(block.macs for step in steps for block in plan.segments[step.segment].blocks)
        return AddedCost(macs, self._served.added_bytes(plan), self._latency_ms(fork), _module_before(new, fork))

    def own_macs(self, module: str) -> int:
        """Return the MACs of the part of the network that holds `module`, as far as the network can be cut."""
        frozen = {block.digest for block in self._chain(frozenset()).blocks}
        return sum(block.macs for block in self._chain(frozenset([module])).blocks if block.digest not in frozen)

    def _chain(self, modules: frozenset[str]) -> Chain:
        if modules not in self._chains:
            combined = self._combined(modules)
            if combined is None:
                network = self._network(modules)
                combined = self._cut(network)
                self._plans[modules] = self._served.plan(combined, network)
            self._chains[modules] = combined
        return self._chains[modules]

    def _combined(self, modules: frozenset[str]) -> Chain | None:
        if len(modules) < 2:
            return None
        return combine_chains(self._chain(frozenset()), [self._chain(frozenset([module])) for module in sorted(modules)])

    def _network(self, modules: frozenset[str]) -> Network:
        if not modules:
            return self._probe
        return _network(self._export(tuple(sorted(modules))))

    @cached_property
    def _probe(self) -> Network:
        return _network(self._export(()))

    def _cut(self, network: Network) -> Chain:
        with guarded(_TO_COME):
            return self._served.chain(network)

    def _latency_ms(self, fork: Tap) -> float | None:
        if self._measure is None:
            return None
        if fork.address not in self._latencies_ms:
            rest = part_after(self._probe.model, self._chain(frozenset()), fork)
            self._latencies_ms[fork.address] = self._measure(rest)
        return self._latencies_ms[fork.address]


def part_after(model: ir.Model, chain: Chain, fork: Tap) -> ir.Model:
    """Return what the canonical `model`, whose chain is `chain`, computes from the tap `fork` on, as an ONNX model of its own."""
    first = next(block.index for block in chain.blocks if fork in block.inputs)
    rest = chain.blocks[first:]
    made = {tap for block in rest for tap in block.outputs}
    taken = dict.fromkeys(tap for block in rest for tap in block.inputs if tap not in made)
    return extract_segment(model, "after the fork", tuple(taken), chain.outputs)


def _network(model: ir.Model) -> Network:
    graph = canonical_form(_TO_COME, model)
    with guarded(_TO_COME):
        return Network(_TO_COME, graph)


def _application(step: PlannedStep) -> tuple[str, tuple[str, ...]]:
    return step.segment, tuple(tap.address for tap in step.inputs)


def _weight_bytes(plan: SharingPlan) -> dict[str, int]:
    return {name: sum(block.weight_bytes for block in segment.blocks) for name, segment in plan.segments.items()}


def _module_before(chain: Chain, tap: Tap) -> str:
    return next((block.modules[-1] if block.modules else tap.name for block in chain.blocks if tap in block.outputs), "")
