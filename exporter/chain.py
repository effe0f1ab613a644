"""A task model as a chain of blocks: what sharing is decided on, without the graph."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from math import prod

import onnx_ir as ir

from exporter.cuts import find_cut_points
from exporter.digests import block_digest, chain_digest, source_digest
from exporter.errors import UnsupportedModel
from exporter.macs import PRODUCTS, count_macs
from exporter.shapes import Shapes, infer_shapes, name_of, shape_of

_NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # module paths, as torch's exporter records them on each node


@dataclass(frozen=True)
class Tap:
    """A tensor at a cut point. `address` hashes how it is computed from the input: equal address, equal value.

    name: the tensor's name in its own model. shape: without the batch axis.
    """

    name: str = field(compare=False)
    address: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Return the size of one row."""
        return prod(self.shape) * ir.DataType[self.dtype].bitwidth // 8


@dataclass(frozen=True)
class Block:
    """The part of the network between two neighbouring cut points.

    structure: the digest without the weights' values. macs: for one row. parameters, weight_bytes: number and size of the weights.
    modules: the network's modules in it, where the producer recorded them. uncounted: operator types that `macs` leaves out.
    """

    index: int
    digest: str
    structure: str
    start: Tap
    end: Tap
    macs: int
    parameters: int
    weight_bytes: int
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chain:
    """A network from its input to its output, as consecutive blocks.

    preprocessing: digest of what stands before the first MAC, "" if nothing does.
    """

    name: str
    blocks: tuple[Block, ...] = field(repr=False)
    preprocessing: str = ""

    @property
    def source(self) -> Tap:
        """Return the network's input."""
        return self.blocks[0].start

    @property
    def macs(self) -> int:
        """Return the MACs of the whole network for one row."""
        return sum(block.macs for block in self.blocks)


@dataclass(frozen=True)
class _Piece:
    """Nodes between two cut points, before pieces without weights are joined to their neighbours."""

    nodes: tuple[ir.Node, ...]
    start: ir.Value
    end: ir.Value


def make_chain(name: str, model: ir.Model) -> Chain:
    """Return the chain of the canonical `model`. Raises UnsupportedModel when it cannot be split into rows and single tensors."""
    _check_splittable(name, model)
    one, other = infer_shapes(model, 1), infer_shapes(model, 3)
    cuts = [value for value in find_cut_points(model.graph) if _has_rows(value, one, other)]
    if cuts[0] is not model.graph.inputs[0] or cuts[-1] is not model.graph.outputs[0]:
        raise UnsupportedModel(name, "input and output must have the batch size as their first dimension and fixed others.")
    pieces = list(_pieces(model.graph, cuts))
    blocks = _blocks(_join_weightless(pieces), model.opset_imports, one)
    return Chain(name, tuple(blocks), _preprocessing_digest(pieces, model.opset_imports))


def _check_splittable(name: str, model: ir.Model) -> None:
    graph = model.graph
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        if len(values) != 1:
            names = ", ".join(str(value.name) for value in values)
            raise UnsupportedModel(name, f"has {len(values)} {kind}s ({names}); a task model has one {kind}.")
        if values[0].dtype is None:
            raise UnsupportedModel(name, f"the {kind} {values[0].name!r} has no known dtype.")
    batch, *others = graph.inputs[0].shape or (None,)
    if isinstance(batch, int):
        raise UnsupportedModel(name, f"the batch size is fixed to {batch}; export it with a dynamic first dimension.")
    if not all(isinstance(dim, int) for dim in others):
        raise UnsupportedModel(name, f"the input's shape {graph.inputs[0].shape} must be fixed but for the batch size.")


def _has_rows(value: ir.Value, one: Shapes, other: Shapes) -> bool:
    """Whether `value` has the batch on its first axis and nothing else depends on it: only then can rows be split and stacked."""
    first, second = one.get(name_of(value), ()), other.get(name_of(value), ())
    return first[:1] == (1,) and second[:1] == (3,) and first[1:] == second[1:]


def _pieces(graph: ir.Graph, cuts: Sequence[ir.Value]) -> Iterator[_Piece]:
    """Split `graph` at `cuts`. Nodes that do not depend on the input go where they are first needed."""
    for start, end in pairwise(cuts):
        needed = _needed_for(end, start)
        yield _Piece(tuple(node for node in graph if node in needed), start, end)


def _needed_for(end: ir.Value, start: ir.Value) -> set[ir.Node]:
    needed: set[ir.Node] = set()
    open_values = [end]
    while open_values:
        value = open_values.pop()
        node = value.producer()
        if value is start or node is None or node in needed:
            continue
        needed.add(node)
        open_values += [item for item in node.inputs if item is not None]
    return needed


def _join_weightless(pieces: list[_Piece]) -> list[_Piece]:
    """Join what cannot be tuned to its neighbour, so that a cut point is always in front of something that a task may have changed.

    A piece without weights (an activation, a pooling) goes to the piece before it. What stands before the first MAC (the
    preprocessing) goes to the piece after it: nobody tunes it, and a cut there would send whole images from one segment to the next.
    """
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and (not _has_weights(piece) or not _has_products(joined[0])):
            joined[-1] = _Piece(joined[-1].nodes + piece.nodes, joined[-1].start, piece.end)
        else:
            joined.append(piece)
    return joined


def _preprocessing_digest(pieces: list[_Piece], opsets: dict[str, int]) -> str:
    before = list(takewhile(lambda piece: not _has_products(piece), pieces))
    if not before:
        return ""
    return block_digest([node for piece in before for node in piece.nodes], before[0].start, before[-1].end, opsets)


def _has_weights(piece: _Piece) -> bool:
    return any(_dtype(value).is_floating_point() for value in _weights(piece.nodes))


def _has_products(piece: _Piece) -> bool:
    return any(node.op_type in PRODUCTS for node in piece.nodes)


def _weights(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    used = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and value.is_initializer())
    return list(used)


def _blocks(pieces: Sequence[_Piece], opsets: dict[str, int], shapes: Shapes) -> Iterator[Block]:
    source = pieces[0].start
    tap = _tap(source, source_digest(_dtype(source).name, shape_of(source, shapes)[1:]), shapes)
    for index, piece in enumerate(pieces):
        digest = block_digest(piece.nodes, piece.start, piece.end, opsets)
        end = _tap(piece.end, chain_digest(tap.address, digest), shapes)
        weights = [(_dtype(value), value.const_value) for value in _weights(piece.nodes) if value.const_value is not None]
        counted = count_macs(piece.nodes, shapes)
        yield Block(
            index=index,
            digest=digest,
            structure=block_digest(piece.nodes, piece.start, piece.end, opsets, structure_only=True),
            start=tap,
            end=end,
            macs=counted.total,
            parameters=sum(int(tensor.size) for dtype, tensor in weights if dtype.is_floating_point()),
            weight_bytes=sum(int(tensor.nbytes) for _, tensor in weights),
            modules=_modules(piece.nodes),
            uncounted=counted.uncounted,
        )
        tap = end


def _tap(value: ir.Value, address: str, shapes: Shapes) -> Tap:
    return Tap(name_of(value), address, _dtype(value).name, shape_of(value, shapes)[1:])


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype if value.dtype is not None else ir.DataType.UNDEFINED


def _modules(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """Return the modules that `nodes` come from: per top-level module, the deepest path that covers all of its nodes."""
    grouped: dict[str, list[str]] = {}
    for node in nodes:
        for path in _module_path(node):
            parts = path.split(".")
            grouped[parts[0]] = _common_prefix(grouped.get(parts[0], parts), parts)
    return tuple(".".join(parts) for parts in grouped.values())


def _module_path(node: ir.Node) -> list[str]:
    """Return the node's module path below the exporter's wrapper, in a list that is empty if unknown."""
    scopes = ast.literal_eval(node.metadata_props.get(_NAME_SCOPES, "[]"))
    # The scopes go from the root to the operator; the wrapper's own child is called "network".
    paths = [scope.removeprefix("network.") for scope in scopes[1:-1] if scope not in ("", "network")]
    return paths[-1:]


def _common_prefix(left: list[str], right: list[str]) -> list[str]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))]
