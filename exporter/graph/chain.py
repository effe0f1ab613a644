"""A task model as a chain of blocks: what sharing is decided on, without the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from math import prod

import onnx_ir as ir

from contract.dtypes import NUMPY_DTYPES, dtype_of_onnx
from exporter.errors import UnsupportedModel
from exporter.graph.coupling import Suspect, find_suspects
from exporter.graph.digests import addresses, block_digest, content_of, steps_digest, weight_digest
from exporter.graph.foreign import operator_name
from exporter.graph.joining import Joiner, has_products
from exporter.graph.macs import count_macs
from exporter.graph.modules import modules_of
from exporter.graph.partition import Part, Partitioner
from exporter.graph.shapes import infer, name_of, shape_of


@dataclass(frozen=True)
class Tap:
    """A tensor at a cut point, or an input or output. `address` hashes how it is computed: equal address, equal value.

    name: the tensor's name in its own model. shape: without the batch axis.
    """

    name: str = field(compare=False)
    address: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def rows(self) -> tuple[str, tuple[int, ...]]:
        """Return the dtype and the shape of one row."""
        return self.dtype, self.shape

    @property
    def row_bytes(self) -> int:
        """Return the size of one row."""
        return prod(self.shape) * ir.DataType[self.dtype].bitwidth // 8


@dataclass(frozen=True)
class Block:
    """The part of the network between two neighbouring cut points.

    inputs: first the tap before it, then what else it takes. outputs: the tap after it; several only at the end of a network.
    structure: the digest without the weights' values. macs: for one row. parameters, weight_bytes: number and size of the weights.
    modules: the network's modules in it, where the producer recorded them. matrices: hashes of its weights of two axes and more, by
    which it is known that another block computes something else with the same weights. uncounted: operator types that `macs` leaves out.
    steps: the digest of the scales and zero points by which it quantises what is computed, "" where it does not.
    suspects: operators through which the rows of a batch may affect each other.
    """

    index: int
    digest: str
    structure: str
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    macs: int
    parameters: int
    weight_bytes: int
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    steps: str = ""
    matrices: frozenset[bytes] = field(default=frozenset(), repr=False, compare=False)

    @cached_property
    def content(self) -> str:
        """Return what tells it apart from blocks that need a model of their own."""
        return content_of(self.digest, (tap.rows for tap in self.inputs))

    @property
    def makes_less(self) -> bool:
        """Whether it makes less of one tensor, and costs next to nothing: better in front of a border than behind it."""
        if self.macs or not len(self.inputs) == len(self.outputs) == 1:
            return False
        return self.weight_bytes < self.start.row_bytes - self.end.row_bytes

    @property
    def start(self) -> Tap:
        """Return the tap before the block."""
        return self.inputs[0]

    @property
    def end(self) -> Tap:
        """Return the tap after the block."""
        return self.outputs[0]


@dataclass(frozen=True)
class Chain:
    """A network from its inputs to its outputs, as blocks, each after those whose taps it takes.

    Nearly always a plain chain; other outputs branch off, and a Siamese head takes two taps.
    preprocessing: digest of what stands before the first MAC, "" if nothing does. crossing: names of inputs from which something is
    computed that is used all along, so that there are fewer cuts.
    """

    name: str
    blocks: tuple[Block, ...] = field(repr=False)
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    preprocessing: str = ""
    crossing: tuple[str, ...] = field(default=(), compare=False)

    @property
    def macs(self) -> int:
        """Return the MACs of the whole network for one row."""
        return sum(block.macs for block in self.blocks)

    @property
    def taps(self) -> frozenset[str]:
        """Return the addresses of all tensors between blocks, inputs and outputs included."""
        return frozenset(tap.address for block in self.blocks for tap in (*block.inputs, *block.outputs))


def make_chain(name: str, model: ir.Model) -> Chain:
    """Return the chain of the canonical `model`. Raises UnsupportedModel when it cannot be split into rows and single tensors."""
    return Network(name, model).chain()


class Network:
    """A canonical model that is being split. Its graph stays; its weights may lie in files.

    sources: the addresses of its inputs, where it is a part of a network and not all of it. inner: whether the part begins at a tap.
    Raises UnsupportedModel when it cannot be split into rows and single tensors.
    """

    def __init__(self, name: str, model: ir.Model, sources: Sequence[str] = (), *, inner: bool = False) -> None:
        _check_splittable(name, model)
        self.name, self.model, self._inner = name, model, inner
        one, other = infer(model, 1), infer(model, 3)
        self._one, self._other = one.shapes, other.shapes
        self._suspects = find_suspects(model, one, other)
        for value in (*model.graph.inputs, *model.graph.outputs):
            if not self._has_rows(value):
                raise UnsupportedModel(name, self._why_no_rows(value))
        self._addresses = addresses(model.graph, model.opset_imports, sources)

    def chain(self, known: Collection[str] = ()) -> Chain:
        """Return the chain; `known` are addresses of taps of other networks, which become taps here if they are on a side way."""
        join = self._join(known)
        blocks = tuple(self._blocks(self._split(known, join)))
        inputs, outputs = map(self._taps, (self.model.graph.inputs, self.model.graph.outputs))
        if len({tap.address for tap in outputs}) < len(outputs):
            names = ", ".join(tap.name for tap in outputs)
            raise UnsupportedModel(self.name, f"gives the same output twice (among {names}); leave one out.")
        crossing = tuple(name_of(value) for value in self._partitioner(known, join).crossing())
        return Chain(self.name, blocks, inputs, outputs, self._preprocessing_digest(), crossing)

    def chain_of_one(self) -> Chain:
        """Return the network as one block."""
        graph = self.model.graph
        whole = Part(tuple(graph), tuple(graph.inputs), tuple(graph.outputs))
        inputs, outputs = map(self._taps, (graph.inputs, graph.outputs))
        return Chain(self.name, tuple(self._blocks([whole])), inputs, outputs, self._preprocessing_digest())

    def has_inside(self, known: Collection[str]) -> bool:
        """Whether the network computes one of the tensors with addresses `known`."""
        return not set(self._addresses.values()).isdisjoint(known)

    def _split(self, known: Collection[str], join: Callable[[list[Part]], list[Part]]) -> list[Part]:
        return self._partitioner(known, join).split()

    def _partitioner(self, known: Collection[str], join: Callable[[list[Part]], list[Part]]) -> Partitioner:
        return Partitioner(self.model.graph, self._can_cross, lambda value: self._addresses[value] in known, join)

    def _has_rows(self, value: ir.Value) -> bool:
        """Whether `value` has the batch on its first axis and nothing else depends on it: only then can rows be split and stacked."""
        first, second = self._one.get(name_of(value), ()), self._other.get(name_of(value), ())
        return len(first) > 1 and first[0] == 1 and second[:1] == (3,) and first[1:] == second[1:]

    def _can_cross(self, value: ir.Value) -> bool:
        """Whether `value` may be a tap: it has rows, of a type that goes from one segment to the next."""
        return self._has_rows(value) and dtype_of_onnx(_dtype(value).name) in NUMPY_DTYPES

    def _why_no_rows(self, value: ir.Value) -> str:
        """Return what is wrong with an input or output that has no rows."""
        shapes = [shapes.get(name_of(value)) for shapes in (self._one, self._other)]
        unknown = next((node for node in self.model.graph if self._loses_shape(node)), None)
        if None in shapes and unknown is not None:
            label = unknown.name or name_of(unknown.outputs[0])
            return (
                f"no shape can be found behind {operator_name(unknown)} (node {label!r}), nor by ONNX Runtime; export it without."
            )
        found = " and ".join(str(list(shape)) if shape is not None else "unknown" for shape in shapes)
        wanted = "inputs and outputs must have the batch size as their first dimension and fixed others"
        return f"{wanted}; the shape of {name_of(value)!r} is {found} for 1 and 3 rows."

    def _loses_shape(self, node: ir.Node) -> bool:
        """Whether the shapes of all that `node` takes are known, and of what it makes are not."""
        taken = [value for value in node.inputs if value is not None and value.const_value is None]
        known, made = (
            [name_of(value) in self._one and name_of(value) in self._other for value in values]
            for values in (taken, node.outputs)
        )
        return all(known) and not all(made)

    def _blocks(self, parts: Sequence[Part]) -> Iterator[Block]:
        opsets = self.model.opset_imports
        for index, part in enumerate(parts):
            weights = [(_dtype(value), value.const_value) for value in _weights(part) if value.const_value is not None]
            counted = count_macs(part.nodes, self._one)
            yield Block(
                index=index,
                digest=block_digest(part.nodes, part.inputs, part.outputs, opsets),
                structure=block_digest(part.nodes, part.inputs, part.outputs, opsets, structure_only=True),
                inputs=self._taps(part.inputs),
                outputs=self._taps(part.outputs),
                macs=counted.total,
                parameters=sum(int(tensor.size) for dtype, tensor in weights if dtype.is_floating_point()),
                weight_bytes=sum(int(tensor.nbytes) for _, tensor in weights),
                modules=modules_of(part.nodes),
                uncounted=counted.uncounted,
                matrices=frozenset(weight_digest(value) for value in _weights(part) if _is_matrix(value)),
                suspects=tuple(dict.fromkeys(self._suspects[node] for node in part.nodes if node in self._suspects)),
                steps=steps_digest(part.nodes),
            )

    def _taps(self, values: Sequence[ir.Value]) -> tuple[Tap, ...]:
        return tuple(
            Tap(name_of(value), self._addresses[value], _dtype(value).name, shape_of(value, self._one)[1:]) for value in values
        )

    def _join(self, known: Collection[str]) -> Callable[[list[Part]], list[Part]]:
        return Joiner(self._row_bytes, lambda value: self._addresses[value] in known, self._is_image).join

    def _row_bytes(self, value: ir.Value) -> int:
        return prod(shape_of(value, self._one)[1:]) * _dtype(value).bitwidth // 8

    def _is_image(self, value: ir.Value) -> bool:
        return not self._inner and value in self.model.graph.inputs

    def _preprocessing_digest(self) -> str:
        before = list(takewhile(lambda part: not has_products(part), self._split((), lambda parts: parts)))
        if not before:
            return ""
        nodes = [node for part in before for node in part.nodes]
        made = {value for node in nodes for value in node.outputs}
        inputs = dict.fromkeys(value for part in before for value in part.inputs if value not in made)
        return block_digest(nodes, tuple(inputs), before[-1].outputs, self.model.opset_imports)


def _check_splittable(name: str, model: ir.Model) -> None:
    graph = model.graph
    if not graph.inputs or not graph.outputs:
        raise UnsupportedModel(name, "has no input or no output; a task model takes and gives tensors.")
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.dtype is None:
                raise UnsupportedModel(name, f"the {kind} {value.name!r} has no known dtype.")
    for value in graph.inputs:
        if value.shape is not None and not len(value.shape):
            why = (
                f"the input {value.name!r} is one number for all rows; make it a constant, or give it a first dimension for rows."
            )
            raise UnsupportedModel(name, why)
        batch, *others = value.shape or (None,)
        if isinstance(batch, int):
            raise UnsupportedModel(name, f"the batch size is fixed to {batch}; export it with a dynamic first dimension.")
        if not all(isinstance(dim, int) for dim in others):
            raise UnsupportedModel(name, f"the input's shape {value.shape} must be fixed but for the batch size.")
    _check_dependence(name, graph)


def _check_dependence(name: str, graph: ir.Graph) -> None:
    depending = set(graph.inputs)
    for node in graph:
        if any(value in depending for value in node.inputs):
            depending.update(node.outputs)
    for value in graph.outputs:
        if value not in depending or value in graph.inputs:
            raise UnsupportedModel(name, f"the output {value.name!r} is not computed from an input.")


def _weights(part: Part) -> list[ir.Value]:
    used = dict.fromkeys(value for node in part.nodes for value in node.inputs if value is not None and value.is_initializer())
    return list(used)


def _is_matrix(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and sum(int(str(size)) > 1 for size in tensor.shape) > 1


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype if value.dtype is not None else ir.DataType.UNDEFINED
