"""Names the operator by which two parts of networks differ first, as in "Gelu here, Div, Erf, Add, Mul and Mul there"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeGuard

import onnx_ir as ir

from exporter.graph.chain import Block
from exporter.graph.definitions import defaults_of
from exporter.graph.digests import attribute_value, given_inputs, hashes, operator_version, said_attributes, weight_digest
from exporter.graph.foreign import CONTROL_FLOW, operator_name
from exporter.graph.shapes import name_of
from exporter.graph.walk import walk_back

_MOST_SHOWN = 8  # numbers of a constant, and operators in a row
_Key = tuple[object, ...]
_Hashes = Mapping[ir.Value | None, bytes]


@dataclass(frozen=True)
class BlockNodes:
    """A block as a part of its graph. nodes: in topological order. opsets: of its network, by domain."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    opsets: Mapping[str, int]


def nodes_of(model: ir.Model, block: Block) -> BlockNodes:
    """Return `block`, which was found in the canonical `model`, as a part of its graph."""
    values = {
        name_of(value): value for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
    }
    inputs, outputs = (tuple(values[tap.name] for tap in taps) for taps in (block.inputs, block.outputs))
    wanted, _ = walk_back(outputs, inputs.__contains__)
    return BlockNodes(tuple(node for node in model.graph if node in wanted), inputs, outputs, model.opset_imports)


def first_difference(ours: BlockNodes, theirs: BlockNodes) -> str:
    """Return which operator of `ours` differs first from what stands in its place in `theirs`, and how, in words; "" if none does."""
    known, others = (hashes(part.nodes, part.inputs, part.opsets) for part in (ours, theirs))
    left, right = _missing(ours.nodes, known, others), _missing(theirs.nodes, others, known)
    places = {_taken(node, others): node for node in reversed(right)}
    for node in left:
        if (other := places.get(_taken(node, known))) is not None:
            return _describe(node, other, left, right, ours.opsets, theirs.opsets)
    return f"{_listed(left)} here, {_listed(right)} there" if left or right else ""


def _missing(nodes: Sequence[ir.Node], known: _Hashes, others: _Hashes) -> list[ir.Node]:
    """Return those of `nodes` that compute what is not among `others`."""
    there = set(others.values())
    return [node for node in nodes if known[node.outputs[0]] not in there]


def _taken(node: ir.Node, known: _Hashes) -> tuple[bytes, ...]:
    """Return the hashes of what `node` takes that is no constant."""
    return tuple(known[value] for value in node.inputs if value is not None and not value.is_initializer())


def _describe(
    node: ir.Node,
    other: ir.Node,
    left: Sequence[ir.Node],
    right: Sequence[ir.Node],
    opsets: Mapping[str, int],
    others_opsets: Mapping[str, int],
) -> str:
    if (
        node.domain == other.domain == CONTROL_FLOW
        and node.op_type != other.op_type
        and operator_name(node) == operator_name(other)
    ):
        return f"{_called(node)} with another body"
    if node.op_identifier() == other.op_identifier():
        return f"{_called(node)} {next(_reasons(node, other, opsets, others_opsets), 'with its inputs in another order')}"
    here, there = (nodes[nodes.index(first) :] for nodes, first in ((left, node), (right, other)))
    keys, others_keys = ([_key(member) for member in nodes] for nodes in (here, there))
    match = next(iter(SequenceMatcher(None, keys, others_keys, autojunk=False).get_matching_blocks()))
    return f"{_listed(here[: match.a])} here, {_listed(there[: match.b])} there"


def _key(node: ir.Node) -> _Key:
    """Return what tells that a node may be one of another network: its operator, and the shapes of its constants."""
    constants = [tuple(_sizes(_tensor(value))) for value in node.inputs if _is_constant(value)]
    return (*node.op_identifier(), *constants)


def _reasons(node: ir.Node, other: ir.Node, opsets: Mapping[str, int], others: Mapping[str, int]) -> Iterator[str]:
    """Yield how two nodes of one operator differ that take the same tensors."""
    if operator_version(node, opsets) != operator_version(other, others):
        was, now = (imports.get(node.domain, imports.get("", 0)) for imports in (opsets, others))
        yield f"of opset {was} against {now}"
    said, says = said_attributes(node, opsets), said_attributes(other, others)
    for name in sorted({*said, *says}):
        here, there = _value(name, said, node, opsets), _value(name, says, other, others)
        if here != there:
            yield f"with {name} {here} against {there}"
    for value, another in zip(node.inputs, other.inputs, strict=False):
        if _is_constant(value) and _is_constant(another) and weight_digest(value) != weight_digest(another):
            yield _constants(value, another)
    if len(given_inputs(node)) != len(given_inputs(other)):
        yield f"with {len(given_inputs(node))} inputs against {len(given_inputs(other))}"


def _value(name: str, said: Mapping[str, ir.Attr], node: ir.Node, opsets: Mapping[str, int]) -> str:
    """Return the value of an attribute of `node`, which has its default unless it is among those that are `said`."""
    attributes = {**defaults_of(node.domain, node.op_type, opsets.get(node.domain, 0)), **said}
    value = attribute_value(attributes[name]) if name in attributes else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_constant(value: ir.Value | None) -> TypeGuard[ir.Value]:
    return value is not None and value.const_value is not None


def _constants(value: ir.Value, other: ir.Value) -> str:
    """Return how two constants differ. Large ones may be on disk, or not even there any more: only their shapes are looked at."""
    (ours, here), (theirs, there) = ((tensor, _sizes(tensor)) for tensor in (_tensor(value), _tensor(other)))
    if here == there and ours.dtype == theirs.dtype and ours.dtype.is_floating_point() and ours.size > 1:
        return f"with other numbers in its weight {name_of(value)!r}"
    if ours.size <= _MOST_SHOWN >= theirs.size:
        return f"with {ours.numpy().tolist()} against {theirs.numpy().tolist()}"
    if here != there:
        return f"with {name_of(value)!r} of shape {here} against {there}"
    return f"with other numbers in {name_of(value)!r}"


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def _sizes(tensor: ir.TensorProtocol) -> list[int]:
    return [int(str(size)) for size in tensor.shape]


def _called(node: ir.Node) -> str:
    label = node.name or name_of(node.outputs[0])
    return f"{operator_name(node)} {label!r}"


def _listed(nodes: Sequence[ir.Node]) -> str:
    names = [operator_name(node) for node in nodes]
    if len(names) > _MOST_SHOWN:
        names = [*names[: _MOST_SHOWN - 1], f"{len(names) - _MOST_SHOWN + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0] if names else "nothing"
