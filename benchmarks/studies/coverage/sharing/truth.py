"""What can be shared: found by running the whole networks, without any address, digest or plan.

Two computations are one if they are the same operator with the same attributes on the same values, weights among them, bit by bit. That is
looked at twice: in ONNX, node by node of each whole network in canonical form, where the weights are counted, too; and in torch, operator
by operator as the networks run, which knows nothing of ONNX.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from contract.dtypes import Array
from exporter.graph.macs import count_macs
from exporter.graph.shapes import infer_shapes, name_of
from exporter.sources.runtime import open_session

_Key = bytes


@dataclass(frozen=True)
class Weight:
    """A weight as it is used: its content, and the computation that takes it."""

    content: bytes
    user: _Key


@dataclass
class Executed:
    """What one network computes. macs: of each computation by what it is, for one row.

    weights: bytes of each by what takes it first. uses: all that take one.
    """

    macs: Counter[_Key] = field(default_factory=Counter)
    weights: dict[Weight, int] = field(default_factory=dict)
    uses: set[Weight] = field(default_factory=set)

    @property
    def total_macs(self) -> int:
        """Return the MACs of all computations."""
        return sum(self.macs.values())

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights."""
        return sum(self.weights.values())


def run_graph(model: ir.Model, inputs: Mapping[str, Array]) -> Executed:
    """Return what the canonical `model` computes of `inputs`, as ONNX Runtime runs it without rewriting anything."""
    values = _all_values(model, inputs)
    shapes, found = infer_shapes(model, 1), Executed()
    known = {name: _digest(value) for name, value in values.items()}
    seen: set[bytes] = set()
    for node in model.graph:
        taken = [b"" if value is None else _content(value, known) for value in node.inputs]
        key = _hash(node.domain.encode(), node.op_type.encode(), _attributes(node), *taken)
        if macs := count_macs([node], shapes).total:
            found.macs[key] += macs
        for value, content in zip(node.inputs, taken, strict=True):
            if value is not None and _is_weight(value):
                found.uses.add(Weight(content, key))
                if content not in seen:
                    seen.add(content)
                    found.weights[Weight(content, key)] = _bytes(value)
    return found


def run_torch(network: nn.Module, inputs: Sequence[Tensor]) -> Executed:
    """Return the MACs of what `network` computes of one row of `inputs`, by torch's own counter.

    What it computes of its weights alone (DeBERTa's keys of positions) does not count: an export computes it once for all requests.
    """
    found = Executed()
    rows = [value[:1] for value in inputs]
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the operator that it is made of
    with torch.no_grad(), _Recorded(found, rows):
        network(*rows)
    return found


@dataclass(frozen=True)
class Possible:
    """Of several networks one by one: MACs and bytes of weights, and how many of them are of something that another has computed already.

    distinct_bytes: of weights with different contents, whatever they are used on.
    """

    macs: int
    shared_macs: int
    weight_bytes: int
    shared_bytes: int
    distinct_bytes: int


def add_up(networks: Sequence[Executed]) -> Possible:
    """Return what `networks` have in common."""
    once: Counter[_Key] = Counter()
    for network in networks:
        once |= network.macs
    macs = sum(network.total_macs for network in networks)
    weight_bytes = sum(network.weight_bytes for network in networks)
    weights = {weight: size for network in networks for weight, size in network.weights.items()}
    distinct = {weight.content: size for weight, size in weights.items()}
    return Possible(macs, macs - sum(once.values()), weight_bytes, weight_bytes - sum(weights.values()), sum(distinct.values()))


def stored_too_often(networks: Sequence[Executed], stored: Iterable[ir.Model]) -> int:
    """Return the bytes that the models `stored` hold of weights beyond one copy for each different computation that takes them."""
    uses = Counter(weight.content for weight in set[Weight]().union(*(network.uses for network in networks)))
    sizes = {weight.content: size for network in networks for weight, size in network.weights.items()}
    there: Counter[bytes] = Counter()
    for model in stored:
        there.update(_weights(model) & sizes.keys())
    return sum(sizes[content] * max(count - uses[content], 0) for content, count in there.items())


def _is_weight(value: ir.Value) -> bool:
    """Whether `value` is a constant of fractions with more than one entry: no number that an operator is told."""
    tensor = value.const_value
    return value.is_initializer() and tensor is not None and tensor.dtype.is_floating_point() and int(tensor.size) > 1


class _Recorded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that torch's counter knows, by what they are and take, of what depends on `rows`."""

    def __init__(self, found: Executed, rows: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found
        self._depending = {id(value): value for value in rows}  # kept, so that no other tensor gets their place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken = tree_flatten((args, kwargs or {}))[0]
        if not any(id(one) in self._depending for one in taken):
            return out
        self._depending.update((id(one), one) for one in tree_flatten(out)[0] if isinstance(one, Tensor))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            contents = (_digest(one.detach().numpy()) if isinstance(one, Tensor) else repr(one).encode() for one in taken)
            key = _hash(str(func).encode(), *contents)
            self._found.macs[key] += int(count(*args, **(kwargs or {}), out_val=out)) // 2
        return out


def _all_values(model: ir.Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return all that `model` computes of `inputs`, and these, by name."""
    clone = model.clone()
    graph = clone.graph
    outputs = {value.name for value in graph.outputs}
    graph.outputs.extend(value for node in graph for value in node.outputs if value.name not in outputs and value.uses())
    session = open_session(clone, optimised=False)
    given = {name_of(value): inputs[name_of(value)] for value in graph.inputs}
    names = [name_of(value) for value in graph.outputs]
    return {**given, **dict(zip(names, session.run(names, given), strict=True))}


def _content(value: ir.Value, known: Mapping[str, bytes]) -> bytes:
    tensor = value.const_value
    return known[name_of(value)] if tensor is None else _digest(tensor.numpy())


def _weights(model: ir.Model) -> set[bytes]:
    return {_digest(value.const_value.numpy()) for value in model.graph.initializers.values() if value.const_value is not None}


def _bytes(value: ir.Value) -> int:
    return int(value.const_value.nbytes) if value.const_value is not None else 0


def _attributes(node: ir.Node) -> bytes:
    return repr(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())).encode()


def _digest(value: Any) -> bytes:
    array = np.ascontiguousarray(value)
    return _hash(str(array.dtype).encode(), str(array.shape).encode(), array.tobytes())


def _hash(*parts: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
