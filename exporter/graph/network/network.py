"""A network that is being split: its graph, its tensors' shapes and addresses, and its blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod

import onnx_ir as ir

from contract.dtypes import NUMPY_DTYPES, dtype_of_onnx
from exporter.errors import UnsupportedModel
from exporter.graph.axes import Axes
from exporter.graph.beside import Cheap, find_cheap, is_light
from exporter.graph.chain import Block, Chain, Tap, count_users, in_order
from exporter.graph.coupling import find_suspects
from exporter.graph.difference import BlockNodes
from exporter.graph.digests import addresses, block_digest, weight_digest
from exporter.graph.flow.macs import macs_of_flow
from exporter.graph.foreign import is_foreign
from exporter.graph.levels import find_levels
from exporter.graph.macs import Macs, count_macs
from exporter.graph.network.blocks import block_of, closure, needed_for, preprocessing_digest
from exporter.graph.network.splittable import check_outputs, check_splittable, why_no_rows
from exporter.graph.network.weights import dtype_of, has_weights, matrices_of
from exporter.graph.partition import Part, Partitioner, Rules
from exporter.graph.shapes import name_of, shape_of

# What is kept, and other inputs change.
_BY_ADDRESS = frozenset(("values", "matrices", "preprocessing", "_by_address", "_by_itself", "_places", "levels"))
_SAVED_BY_ONE_ANSWER = 0.1  # of a network's MACs: outputs whose asking for alone saves less are always asked for together


def make_chain(name: str, model: ir.Model) -> Chain:
    """Return the chain of the canonical `model`. Raises UnsupportedModel when it cannot be split into rows."""
    return Network(name, model).chain()


class Network:
    """A canonical model that is being split. Its graph stays; its weights may lie in files.

    inner: of a model that is a part of a network, which of its inputs are taps, and no inputs of the network; empty: none is.
    Raises UnsupportedModel when it cannot be split into rows.
    """

    def __init__(self, name: str, model: ir.Model, inner: Sequence[bool] = ()) -> None:
        check_splittable(name, model)
        self.name, self.model = name, model
        self._inner = [value for value, is_tap in zip(model.graph.inputs, inner, strict=False) if is_tap]
        self._axes = Axes(model)
        self._one, self._other = self._axes.one.shapes, self._axes.other.shapes
        self._suspects = find_suspects(model, self._axes.one, self._axes.other)
        for value in (*model.graph.inputs, *model.graph.outputs):
            if not self._has_rows(value):
                raise UnsupportedModel(name, why_no_rows(model.graph, value, self._one, self._other))
        self._addresses = addresses(model.graph, model.opset_imports)
        self._digests: dict[Part, str] = {}
        self._known_blocks: dict[Part, Block] = {}
        check_outputs(name, model.graph.outputs, self._addresses)

    def fed(self, sources: Sequence[str]) -> Network:
        """Return the network with the addresses `sources` for its inputs."""
        if list(sources) == [self._addresses[value] for value in self.model.graph.inputs]:
            return self
        other = Network.__new__(Network)
        kept = {name: value for name, value in vars(self).items() if name not in _BY_ADDRESS}
        vars(other).update(kept, _addresses=addresses(self.model.graph, self.model.opset_imports, sources))
        return other

    @cached_property
    def _macs(self) -> int:
        return self._count(self.model.graph).total

    def _count(self, nodes: Iterable[ir.Node]) -> Macs:
        return count_macs(nodes, self._one, self._flow)

    @cached_property
    def _flow(self) -> Mapping[ir.Node, Macs]:
        return macs_of_flow(self.model, self._one)

    @cached_property
    def answers(self) -> tuple[tuple[ir.Value, ...], ...]:
        """Return the outputs, those together that are asked for together: all, unless asking for one alone saves much."""
        outputs = tuple(self.model.graph.outputs)
        most = self._macs * (1 - _SAVED_BY_ONE_ANSWER)
        if len(outputs) > 1 and any(self._count(needed_for([value])).total <= most for value in outputs):
            return tuple((value,) for value in outputs)
        return (outputs,)

    @cached_property
    def values(self) -> tuple[frozenset[str], ...]:
        """Return for each answer the addresses of all that is computed for it."""
        return tuple(
            frozenset(self._addresses[value] for node in needed_for(outputs) for value in node.outputs)
            for outputs in self.answers
        )

    def chain(self, users: Mapping[str, int] | None = None, there: Sequence[Block] = (), kept: Collection[str] = ()) -> Chain:
        """Return the network as blocks.

        users: who needs what (`count_users`), of this network and those with which it is to share.
        there: blocks that are in a repository and compute next to nothing that this network does not; what one of them gives is taken
        from it, each after those whose taps it takes.
        kept: addresses of tensors that are taps wherever they can be.
        """
        graph = self.model.graph
        taps = (tap.address for block in there for tap in block.outputs)
        given = {address: self._by_address[address] for address in taps if address in self._by_address}
        by_itself = users is None and not there and not kept
        own = self._by_itself if by_itself else self._divided(users or count_users([self.values]), given.values(), kept)
        taken = {self._addresses[value] for values in (*(part.inputs for part, _ in own), graph.outputs) for value in values}
        inputs, outputs = map(self._taps, (graph.inputs, graph.outputs))
        return Chain(
            name=self.name,
            blocks=in_order([*closure(there, taken), *(self._spanning(block, part) for part, block in own)]),
            inputs=inputs,
            outputs=outputs,
            preprocessing=self.preprocessing,
            answers=tuple(tuple(self._addresses[value] for value in values) for values in self.answers),
            values=self.values,
            own_macs=self._macs,
        )

    @cached_property
    def levels(self) -> frozenset[str]:
        """Return the addresses of the last tensor of each resolution, as far as they can be taps."""
        parts = self._partition(count_users([self.values]), (), frozenset(self._by_address))
        return find_levels(((self._taps(part.inputs), self._taps(part.outputs)) for part in parts), self.inputs)

    def _spanning(self, block: Block, part: Part) -> Block:
        """Return `block` with its place in the network by itself."""
        places = [self._places[node] for node in part.nodes if node in self._places]
        return replace(block, span=(min(places), max(places))) if places else block

    @cached_property
    def _by_itself(self) -> list[tuple[Part, Block]]:
        """Return the parts of the network, whatever others there are."""
        return self._divided(count_users([self.values]), (), ())

    def _divided(self, users: Mapping[str, int], given: Collection[ir.Value], kept: Collection[str]) -> list[tuple[Part, Block]]:
        parts = self._partition(users, given, kept)
        return list(zip(parts, self._blocks(parts), strict=True))

    @cached_property
    def _places(self) -> dict[ir.Node, int]:
        """Return for each node the block in which it is where the network is by itself; the last one, where it is in several."""
        places = {block.outputs: block.index for block in in_order([block for _, block in self._by_itself])}
        return {node: places[block.outputs] for part, block in self._by_itself for node in part.nodes}

    def digest(self, inputs: Sequence[Tap] = (), outputs: Sequence[Tap] = ()) -> str:
        """Return the digest of what lies between taps of the network, as one model; without taps, of all of it."""
        if not outputs:
            return self._digest_of(self._whole)
        part = self.part(inputs, outputs)
        return block_digest(part.nodes, part.inputs, part.outputs, self.model.opset_imports)

    def _digest_of(self, part: Part) -> str:
        if part not in self._digests:
            self._digests[part] = block_digest(part.nodes, part.inputs, part.outputs, self.model.opset_imports)
        return self._digests[part]

    def values_between(self, inputs: Sequence[Tap], outputs: Sequence[Tap]) -> frozenset[str]:
        """Return the addresses of all that is computed between taps."""
        before, after = ([self._values[tap.name] for tap in taps] for taps in (inputs, outputs))
        return frozenset(self._addresses[value] for node in needed_for(after, before) for value in node.outputs)

    def part(self, inputs: Sequence[Tap] = (), outputs: Sequence[Tap] = ()) -> BlockNodes:
        """Return what is computed between taps, as a part of the graph; without taps, all of it."""
        whole, opsets = self._whole, self.model.opset_imports
        if not outputs:
            return BlockNodes(whole.nodes, whole.inputs, whole.outputs, opsets)
        before, after = (tuple(self._values[tap.name] for tap in taps) for taps in (inputs, outputs))
        needed = needed_for(after, before)
        return BlockNodes(tuple(node for node in whole.nodes if node in needed), before, after, opsets)

    def address(self, value: ir.Value) -> str:
        """Return the address of a tensor of the graph."""
        return self._addresses[value]

    def macs(self, nodes: Iterable[ir.Node]) -> int:
        """Return the MACs of `nodes`, for one row."""
        return self._count(nodes).total

    def macs_of(self, addresses: Collection[str]) -> int:
        """Return the MACs of what is computed under `addresses`, for one row."""
        nodes = [node for node in self.model.graph if self._addresses[node.outputs[0]] in addresses]
        return self._count(nodes).total

    def is_cheap(self, addresses: Collection[str]) -> bool:
        """Whether what is computed under `addresses` takes no products and next to no weights, nor operators that onnx does not know."""
        nodes = [node for node in self.model.graph if self._addresses[node.outputs[0]] in addresses]
        return is_light(nodes) and not any(is_foreign(node.domain) for node in nodes)

    @cached_property
    def matrices(self) -> tuple[tuple[str, frozenset[bytes]], ...]:
        """Return, for each value that is computed with weights of two axes and more, its address and the hashes of these."""
        found = matrices_of(self.model.graph)
        return tuple((self._addresses[node.outputs[0]], frozenset(map(weight_digest, values))) for node, values in found)

    @property
    def inputs(self) -> tuple[Tap, ...]:
        """Return what the network takes."""
        return self._taps(self.model.graph.inputs)

    @cached_property
    def _values(self) -> dict[str, ir.Value]:
        graph = self.model.graph
        return {name_of(value): value for value in (*graph.inputs, *(value for node in graph for value in node.outputs))}

    def block(self) -> Block:
        """Return the network as one block."""
        (block,) = self._blocks([self._whole])
        return block

    @cached_property
    def _whole(self) -> Part:
        graph = self.model.graph
        return Part(tuple(graph), tuple(graph.inputs), tuple(graph.outputs))

    @cached_property
    def _by_address(self) -> dict[str, ir.Value]:
        return {address: value for value, address in self._addresses.items()}

    @cached_property
    def _sources(self) -> frozenset[ir.Value]:
        """Return what it takes that is an input of the whole network."""
        return frozenset(self.model.graph.inputs) - frozenset(self._inner)

    @cached_property
    def _cheap(self) -> Cheap:
        return find_cheap(self.model.graph, self._sources, self._has_rows, self._row_bytes)

    def _partition(self, users: Mapping[str, int], given: Collection[ir.Value], kept: Collection[str]) -> list[Part]:
        graph, cheap = self.model.graph, self._cheap
        rules = Rules(
            crosses=lambda value: value not in cheap.again and self._can_cross(value),
            users=lambda node: users.get(self._addresses[node.outputs[0]], 0),
            beside=cheap.beside,
            follows=cheap.follows,
            inputs=self._sources,
            weighty=lambda part: has_weights(part.nodes),
            light=lambda part: is_light(part.nodes),
            kept=lambda value: self._addresses[value] in kept,
        )
        return Partitioner(graph, rules, graph.outputs, given).split()

    def _row_bytes(self, value: ir.Value) -> int:
        return prod(shape_of(value, self._one)[1:]) * dtype_of(value).bitwidth // 8

    def _has_rows(self, value: ir.Value) -> bool:
        """Whether rows of `value` can be split and stacked."""
        return self._axes.have_rows(value)

    def _can_cross(self, value: ir.Value) -> bool:
        """Whether `value` may be a tap: it has rows, of a type that goes from one segment to the next."""
        return self._has_rows(value) and dtype_of_onnx(dtype_of(value).name) in NUMPY_DTYPES

    def _blocks(self, parts: Sequence[Part]) -> Iterator[Block]:
        for index, part in enumerate(parts):
            block = self._block_anywhere(part)
            yield replace(block, index=index, inputs=self._taps(part.inputs), outputs=self._taps(part.outputs))

    def _block_anywhere(self, part: Part) -> Block:
        """Return `part` as a block without taps: whatever the network is fed, and whatever others there are, the rest is the same."""
        if part not in self._known_blocks:
            opsets, counted = self.model.opset_imports, self._count(part.nodes)
            self._known_blocks[part] = block_of(part, opsets, self._digest_of(part), counted, self._suspects)
        return self._known_blocks[part]

    def _taps(self, values: Sequence[ir.Value]) -> tuple[Tap, ...]:
        return tuple(self._tap(value) for value in values)

    def _tap(self, value: ir.Value) -> Tap:
        axes = self._axes
        names, known = axes.names(value), axes.known(value)
        return Tap(name_of(value), self._addresses[value], dtype_of(value).name, axes.shape(value), names, known)

    @cached_property
    def preprocessing(self) -> str:
        """Return the digest of what is computed before the first product, "" if nothing is."""
        return preprocessing_digest(self.model.graph, self._addresses)
