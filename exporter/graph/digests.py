"""Hashes of what a network computes.

They cover operators, attributes, wiring and the contents of initializers; not names, not the order of nodes, not recorded shapes.
An operator counts by the version since which it means what it means, not by the opset of its file; an attribute that says the
default, as one that is left out. They are Merkle hashes: a tensor's hash covers its producer and the hashes of the producer's
inputs. Two leaves are chosen:

- an address hashes a tensor from the network's inputs on: equal addresses, equal values;
- a block's digest hashes what the block makes of its inputs, which count as fixed leaves: equal digests on equal inputs, equal results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import dropwhile

import numpy as np
import onnx_ir as ir

from exporter.errors import UnsupportedModel
from exporter.graph.definitions import defaults_of, version_of

_Hashes = dict[ir.Value | None, bytes]
_HashWeight = Callable[[ir.Value], bytes]
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_QUANTISING = frozenset(("QuantizeLinear", "DequantizeLinear"))
_COMMUTATIVE = frozenset(("Add", "Mul"))  # a + b is b + a to the bit, and producers write constants on either side
_CACHED = "espalier_digest"  # in an initializer's `meta`
_KNOWN = 4096  # attributes, and operators with theirs: a thousand networks have the same few dozen


def addresses(graph: ir.Graph, opsets: Mapping[str, int], sources: Sequence[str] = ()) -> dict[ir.Value, str]:
    """Return the address (SHA-256, hex) of every tensor that a node of `graph` makes or an input brings.

    opsets: operator-set versions by domain; they belong to the meaning of an operator. sources: the addresses of the inputs, where
    `graph` is a part of a network.
    """
    known: _Hashes = {None: _hash(b"absent input")}
    known.update(zip(graph.inputs, map(bytes.fromhex, sources or _sources(graph)), strict=True))
    _hash_nodes(graph, known, opsets, weight_digest)
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return {value: known[value].hex() for value in values}


def hashes(
    nodes: Iterable[ir.Node],
    inputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
    hash_weight: _HashWeight | None = None,
) -> dict[ir.Value | None, bytes]:
    """Return the hash of each tensor that `nodes` (in topological order) take or make. `inputs` count as fixed leaves.

    hash_weight: of a constant; None: of all that it holds.
    """
    known: _Hashes = {None: _hash(b"absent input")}
    known.update({value: _hash(b"block input", str(index).encode()) for index, value in enumerate(inputs)})
    _hash_nodes(nodes, known, opsets, hash_weight or weight_digest)
    return known


def block_digest(
    nodes: Iterable[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    opsets: Mapping[str, int],
    *,
    structure_only: bool = False,
) -> str:
    """Return the SHA-256 (hex) of what `nodes` (in topological order) make of `inputs`, in `outputs`.

    structure_only: floating-point weights, and what quantised networks have in their place, count by dtype and shape alone, so that two
    trainings of one architecture give the same.
    """
    known = hashes(nodes, inputs, opsets, _shape_digest if structure_only else weight_digest)
    return _hash(*(known[value] for value in outputs)).hex()


def steps_digest(nodes: Iterable[ir.Node]) -> str:
    """Return the SHA-256 (hex) of the scales and zero points by which `nodes` quantise what is computed; "" where they quantise nothing."""
    steps = [
        weight_digest(value)
        for node in nodes
        if node.op_type in _QUANTISING and not _is_constant(node.inputs[0])
        for value in node.inputs[1:]
        if value is not None and value.const_value is not None
    ]
    return _hash(*steps).hex() if steps else ""


def combined_digest(digests: Sequence[str]) -> str:
    """Return one digest for several blocks in order; that of one block is its own."""
    return digests[0] if len(digests) == 1 else _hash(*map(bytes.fromhex, digests)).hex()


def content_of(digest: str, takes: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Return what makes two parts of networks one model: the digest, and the dtypes and shapes of the rows that it takes.

    A part without weights, or a convolution, has one digest wherever it occurs, but a model is made for one shape.
    """
    return " ".join([digest, *(f"{dtype}{list(shape)}" for dtype, shape in takes)])


def weight_digest(value: ir.Value) -> bytes:
    """Return the hash of the dtype, shape and bytes of a constant. It is computed once per value."""
    if value.const_value is None:
        raise UnsupportedModel(str(value.name), "a block depends on a tensor that is neither its input nor a constant.")
    if _CACHED not in value.meta:
        value.meta[_CACHED] = _tensor_digest(value.const_value)
    return bytes(value.meta[_CACHED])


def _tensor_digest(tensor: ir.TensorProtocol) -> bytes:
    """Return the hash of a tensor's dtype, shape and bytes."""
    return _hash(tensor.dtype.name.encode(), str(list(tensor.shape)).encode(), tensor_content(tensor))


def tensor_content(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """Return the tensor's bytes, without a copy where its memory is as ONNX would write it."""
    array = tensor.numpy()
    plain = (
        array.flags.c_contiguous
        and array.nbytes == tensor.nbytes
        and array.dtype.byteorder in "=|<"
        and array.dtype.kind in "fiub"
    )
    return array.reshape(-1).view(np.uint8).data if plain and array.size else tensor.tobytes()


def source_address(dtype: str, shape: Sequence[int], name: str = "") -> str:
    """Return the address of an input: what may be put there (dtype in ONNX's words, shape without the batch axis, -1 for a free size).

    name: told apart by it, where a network has several inputs.
    """
    return _hash(b"source", dtype.encode(), repr(list(shape)).encode(), name.encode()).hex()


def _sources(graph: ir.Graph) -> list[str]:
    named = len(graph.inputs) > 1
    return [
        source_address(
            value.dtype.name if value.dtype is not None else "",
            [dim if isinstance(dim, int) else -1 for dim in tuple(value.shape or ())[1:]],
            str(value.name) if named else "",
        )
        for value in graph.inputs
    ]


def _shape_digest(value: ir.Value) -> bytes:
    tensor = value.const_value
    if tensor is None or not (tensor.dtype.is_floating_point() or _is_quantised(value)):
        return weight_digest(value)
    return _hash(tensor.dtype.name.encode(), str(list(tensor.shape)).encode())


def _is_quantised(value: ir.Value) -> bool:
    """Whether `value` is a weight, a bias or a zero point of a quantised network."""
    return all(user.op_type in _QUANTISING or user.op_type.startswith("QLinear") for user in value.consumers())


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _hash_nodes(
    nodes: Iterable[ir.Node], known: _Hashes, opsets: Mapping[str, int], hash_weight: _HashWeight, depth: int = 0
) -> None:
    """Put the hashes of what `nodes` take and make among the `known`. depth: how many graphs they are inside of."""
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in known:
                known[value] = hash_weight(value)
        inputs = [known[value] for value in given_inputs(node)]
        bodies = _bodies(node, known, opsets, hash_weight, depth)
        base = _framed(_node_hash(node, sorted(inputs) if node.op_type in _COMMUTATIVE else inputs, opsets, bodies))
        for index, value in enumerate(node.outputs):
            known[value] = hashlib.sha256(base + _framed(str(index).encode())).digest()


def _bodies(node: ir.Node, known: _Hashes, opsets: Mapping[str, int], hash_weight: _HashWeight, depth: int) -> dict[str, bytes]:
    """Return the hashes of the graphs inside `node`, by attribute: of what they make of their inputs and what is `known` outside."""
    found = {}
    for name, attribute in node.attributes.items():
        if attribute.type in _GRAPHS:
            graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
            found[name] = _hash(b"graphs", *(_graph_hash(node, graph, known, opsets, hash_weight, depth) for graph in graphs))
    return found


def _graph_hash(
    node: ir.Node, graph: ir.Graph, known: _Hashes, opsets: Mapping[str, int], hash_weight: _HashWeight, depth: int
) -> bytes:
    inside = dict(known)
    for index, value in enumerate(graph.inputs):
        dtype, shape = value.dtype.name if value.dtype is not None else "", str(value.shape) if counts(node, index) else ""
        inside[value] = _hash(b"body input", str(depth).encode(), str(index).encode(), dtype.encode(), shape.encode())
    _hash_nodes(graph, inside, opsets, hash_weight, depth + 1)
    for value in graph.outputs:
        if value not in inside:
            inside[value] = hash_weight(value)
    return _hash(str(len(graph.inputs)).encode(), *(inside[value] for value in graph.outputs))


def counts(node: ir.Node, index: int) -> bool:
    """Whether the input `index` of the body of `node` says how often a Loop has run, or whether it goes on."""
    return node.op_type == "Loop" and index < 2


def given_inputs(node: ir.Node) -> list[ir.Value | None]:
    """Return what `node` takes, without the inputs at its end that are left out."""
    return list(dropwhile(lambda value: value is None, reversed(node.inputs)))[::-1]


def operator_version(node: ir.Node, opsets: Mapping[str, int]) -> int:
    """Return the version of its domain since which `node` means what it means. opsets: of its network, by domain."""
    return version_of(node.domain, node.op_type, _opset_of(node, opsets), said_attributes(node, opsets))


def said_attributes(node: ir.Node, opsets: Mapping[str, int]) -> dict[str, ir.Attr]:
    """Return the attributes of `node` that say something else than their default."""
    return {name: node.attributes[name] for name in _meaning(node, opsets).said}


@dataclass(frozen=True)
class _Meaning:
    """What an operator does, whatever it takes.

    said: the hashes of the attributes that say something else than their default, but for the graphs inside. begins, ends: what is hashed
    before and behind its inputs.
    """

    said: Mapping[str, bytes]
    begins: bytes
    ends: bytes


def _meaning(node: ir.Node, opsets: Mapping[str, int]) -> _Meaning:
    plain = ((name, attribute) for name, attribute in node.attributes.items() if attribute.type not in _GRAPHS)
    hashed = tuple((name, _attribute_hash(attribute)) for name, attribute in plain)
    return _meaning_of(node.domain, node.op_type, _opset_of(node, opsets), hashed)


@lru_cache(_KNOWN)
def _meaning_of(domain: str, operator: str, opset: int, hashed: tuple[tuple[str, bytes], ...]) -> _Meaning:
    defaults = _default_hashes(domain, operator, opset)
    said = {name: value for name, value in hashed if defaults.get(name) != value}
    version = version_of(domain, operator, opset, said)
    begins = (domain or "ai.onnx", str(version), operator)
    return _Meaning(said, b"".join(_framed(text.encode()) for text in begins), _attributes_hashed(said))


def _attributes_hashed(hashed: Mapping[str, bytes]) -> bytes:
    return b"".join(_framed(name.encode()) + _framed(value) for name, value in sorted(hashed.items()))


@cache
def _default_hashes(domain: str, operator: str, opset: int) -> Mapping[str, bytes]:
    return {name: _attribute_hash(attribute) for name, attribute in defaults_of(domain, operator, opset).items()}


def _opset_of(node: ir.Node, opsets: Mapping[str, int]) -> int:
    return opsets.get(node.domain, opsets.get("", 0))


def _node_hash(node: ir.Node, inputs: list[bytes], opsets: Mapping[str, int], bodies: Mapping[str, bytes]) -> bytes:
    meaning = _meaning(node, opsets)
    ends = _attributes_hashed({**meaning.said, **bodies}) if bodies else meaning.ends
    parts = (meaning.begins, _framed(str(len(inputs)).encode()), *map(_framed, inputs), ends)
    return hashlib.sha256(b"".join(parts)).digest()


def _attribute_hash(attribute: ir.Attr) -> bytes:
    if attribute.type == ir.AttributeType.TENSOR:
        return _tensor_digest(attribute.value)
    return _hash_written(attribute.type.name, repr(attribute_value(attribute)))


@lru_cache(_KNOWN)
def _hash_written(kind: str, value: str) -> bytes:
    return _hash(kind.encode(), value.encode())


def attribute_value(attribute: ir.Attr) -> object:
    """Return the value as a file holds it: a float is a float32 there, while torch's exporter keeps Python's in memory."""
    if attribute.type == ir.AttributeType.FLOAT:
        return float(np.float32(attribute.value))
    if attribute.type == ir.AttributeType.FLOATS:
        return tuple(float(np.float32(number)) for number in attribute.value)
    return attribute.value


def _hash(*parts: bytes | memoryview) -> bytes:
    """Hash `parts` so that no two different sequences look alike: each is preceded by its length."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _framed(part: bytes) -> bytes:
    """Return a short `part` behind its length, as `_hash` reads it."""
    return len(part).to_bytes(8, "little") + part
