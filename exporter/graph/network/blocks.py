"""A part of a network as a block, and which blocks are needed for what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from exporter.graph.chain import Block
from exporter.graph.coupling import Suspect
from exporter.graph.digests import block_digest, combined_digest, steps_digest, weight_digest
from exporter.graph.macs import Macs, is_product
from exporter.graph.modules import modules_of
from exporter.graph.network.weights import dtype_of, is_matrix, weights_of
from exporter.graph.partition import Part
from exporter.graph.walk import walk_back


def closure(blocks: Sequence[Block], addresses: Iterable[str]) -> list[Block]:
    """Return those of `blocks`, each after those whose taps it takes, that are needed for the tensors `addresses`."""
    wanted, needed = set(addresses), []
    for block in reversed(blocks):
        if not wanted.isdisjoint(tap.address for tap in block.outputs):
            needed.append(block)
            wanted.update(tap.address for tap in block.inputs)
    return needed[::-1]


def needed_for(targets: Iterable[ir.Value], given: Collection[ir.Value] = ()) -> set[ir.Node]:
    """Return the nodes that `targets` are computed by, from the values `given`."""
    return walk_back(targets, given.__contains__)[0]


def block_of(part: Part, opsets: Mapping[str, int], digest: str, counted: Macs, suspects: Mapping[ir.Node, Suspect]) -> Block:
    """Return `part` as a block without taps. counted: its MACs; suspects: of the whole network, by node."""
    used = weights_of(part.nodes)
    weights = [(dtype_of(value), value.const_value) for value in used if value.const_value is not None]
    return Block(
        index=0,
        digest=digest,
        structure=block_digest(part.nodes, part.inputs, part.outputs, opsets, structure_only=True),
        inputs=(),
        outputs=(),
        macs=counted.total,
        parameters=sum(int(tensor.size) for dtype, tensor in weights if dtype.is_floating_point()),
        weight_bytes=sum(int(tensor.nbytes) for _, tensor in weights),
        modules=modules_of(part.nodes),
        uncounted=counted.uncounted,
        matrices=frozenset(weight_digest(value) for value in used if is_matrix(value)),
        steps=steps_digest(part.nodes),
        suspects=tuple(dict.fromkeys(suspects[node] for node in part.nodes if node in suspects)),
    )


def preprocessing_digest(graph: ir.Graph, addresses: Mapping[ir.Value, str]) -> str:
    """Return the digest of what `graph` computes before the first product, "" if nothing is."""
    before: set[ir.Value] = set(graph.inputs)
    behind: set[ir.Value] = set()
    for node in graph:
        if is_product(node) or not behind.isdisjoint(node.inputs):
            behind.update(node.outputs)
        elif not before.isdisjoint(node.inputs):
            before.update(node.outputs)
    ends = (value for node in graph if not behind.isdisjoint(node.outputs) for value in node.inputs if value in before)
    found = sorted({addresses[value] for value in ends if value is not None and value.producer() is not None})
    return combined_digest(found) if found else ""
