"""A block's digest: a hash of what the block computes.

The hash covers operator types, attributes, wiring and the contents of initializers; not names, not the order of nodes, not recorded
shapes. It is a Merkle hash: a tensor's hash covers its producer and the hashes of the producer's inputs, and the block's input counts
as a fixed leaf. Equal digests on equal inputs mean equal results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

from exporter.errors import UnsupportedModel

_BLOCK_INPUT = b"block input"
_ABSENT = b"absent input"


def block_digest(
    nodes: Iterable[ir.Node], start: ir.Value, end: ir.Value, opsets: Mapping[str, int], *, structure_only: bool = False
) -> str:
    """Return the SHA-256 (hex) of what `nodes` (in topological order) compute from `start` to `end`.

    opsets: operator-set versions by domain; they belong to the meaning of an operator. structure_only: floating-point weights count
    by dtype and shape alone, so that two trainings of one architecture give the same value.
    """
    known: dict[ir.Value | None, bytes] = {start: _BLOCK_INPUT, None: _ABSENT}
    hash_weight = _shape_digest if structure_only else tensor_digest
    for node in nodes:
        inputs = [_input_hash(value, known, hash_weight) for value in node.inputs]
        base = _node_hash(node, inputs, opsets)
        known.update({value: _hash(base, str(index).encode()) for index, value in enumerate(node.outputs)})
    return known[end].hex()


def chain_digest(previous: str, block: str) -> str:
    """Return the address of the tensor that a block with digest `block` makes from the tensor at address `previous`."""
    return _hash(bytes.fromhex(previous), bytes.fromhex(block)).hex()


def source_digest(dtype: str, shape: tuple[int, ...]) -> str:
    """Return the address of the network's input: its dtype and its shape without the batch axis."""
    return _hash(b"source", dtype.encode(), repr(shape).encode()).hex()


def tensor_digest(tensor: ir.TensorProtocol) -> bytes:
    """Return the hash of a tensor's dtype, shape and bytes."""
    return _hash(tensor.dtype.name.encode(), str(list(tensor.shape)).encode(), tensor.tobytes())


def _shape_digest(tensor: ir.TensorProtocol) -> bytes:
    if not tensor.dtype.is_floating_point():
        return tensor_digest(tensor)
    return _hash(tensor.dtype.name.encode(), str(list(tensor.shape)).encode())


def _input_hash(
    value: ir.Value | None, known: dict[ir.Value | None, bytes], hash_weight: Callable[[ir.TensorProtocol], bytes]
) -> bytes:
    if value is not None and value not in known:
        if value.const_value is None:
            raise UnsupportedModel(str(value.name), "a block depends on a tensor that is neither its input nor a constant.")
        known[value] = hash_weight(value.const_value)
    return known[value]


def _node_hash(node: ir.Node, inputs: list[bytes], opsets: Mapping[str, int]) -> bytes:
    domain = node.domain or "ai.onnx"
    version = opsets.get(node.domain, opsets.get("", 0))
    attributes = sorted((name, _attribute_hash(node, attribute)) for name, attribute in node.attributes.items())
    parts = [domain.encode(), str(version).encode(), node.op_type.encode(), str(len(inputs)).encode(), *inputs]
    for name, value in attributes:
        parts += [name.encode(), value]
    return _hash(*parts)


def _attribute_hash(node: ir.Node, attribute: ir.Attr) -> bytes:
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        raise UnsupportedModel(
            str(node.name), f"contains control flow ({node.op_type}), which cannot be compared; export it without."
        )
    if attribute.type == ir.AttributeType.TENSOR:
        return tensor_digest(attribute.value)
    return _hash(attribute.type.name.encode(), repr(attribute.value).encode())


def _hash(*parts: bytes) -> bytes:
    """Hash `parts` so that no two different sequences look alike: each is preceded by its length."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
