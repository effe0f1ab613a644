"""Convolutions that are equal but for rounding, taken as equal.

torch's old exporter folds BatchNorm into convolutions by torch's own arithmetic, the new one by numpy's. The root of the variance is not
rounded alike by both, nor by one of them on all processors, so that a seventh of the weights of one network differ in the last bit.
No digest can find what was the same before: so weights are compared with those that are known, and the known ones are taken. What comes
out is compared with the network as it was given, as ever.
*Alternative: hash fewer bits.* Of a million weights some always lie where the last bit decides about the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.graph.digests import weight_digest

_FOLDED_INTO = ("Conv", "ConvTranspose", "Gemm")
_ULPS = 8  # of a weight: a root, a quotient and a product, each rounded, in both; up to 3 were seen
_BIAS = 2.0**-18  # of the largest bias: differences that cancel leave no bound for one alone
_FIRST = 32  # weights that are looked at before all others

_Floats = NDArray[np.float32]
THERE = "the repository"


@dataclass(frozen=True)
class Taken:
    """That a network takes `count` pairs of weights and biases of `owners`, each being its own but for rounding."""

    count: int
    owners: tuple[str, ...]

    @property
    def remark(self) -> str:
        """Return it as a sentence that goes on after the network's name."""
        pairs = "one convolution" if self.count == 1 else f"{self.count} convolutions"
        return (
            f"takes the weights of {' and '.join(self.owners)} for {pairs}, which are its own but for rounding "
            f"(up to {_ULPS} units in the last place): BatchNorm was folded into them by another exporter, or on another processor."
        )


@dataclass(frozen=True)
class _Pair:
    owner: str
    node: ir.Node
    digest: bytes

    @property
    def values(self) -> list[ir.Value]:
        """The weight and, if there is one, the bias."""
        return [value for value in self.node.inputs[1:3] if value is not None]

    @property
    def arrays(self) -> list[_Floats]:
        return [value.const_value.numpy().reshape(-1) for value in self.values if value.const_value is not None]


def take_known_weights(models: Mapping[str, ir.Model], there: Iterable[ir.Model]) -> dict[str, Taken]:
    """Let convolutions in `models`, canonical graphs by name, take weights that differ from theirs by rounding alone; say which did.

    Of several the first is taken; those in `there` come before all others, and stay as they are. Changes in place.
    """
    known: dict[object, _Known] = {}
    for model in there:
        for pair in _pairs(THERE, model):
            _find(pair, known)
    taken: dict[str, list[str]] = {}
    for pair in (pair for name, model in models.items() for pair in _pairs(name, model)):
        found = _find(pair, known)
        if found.digest != pair.digest:
            _replace(pair, found)
            taken.setdefault(pair.owner, []).append(found.owner)
    return {name: Taken(len(owners), tuple(sorted(set(owners)))) for name, owners in taken.items()}


def _pairs(owner: str, model: ir.Model) -> Iterator[_Pair]:
    for node in model.graph:
        values = [value for value in node.inputs[1:3] if value is not None] if node.op_type in _FOLDED_INTO else []
        if values and all(value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT for value in values):
            yield _Pair(owner, node, b"".join(map(weight_digest, values)))


def _find(pair: _Pair, known: dict[object, _Known]) -> _Pair:
    """Return the first of those `known` that `pair` is but for rounding; if there is none, it is known from now on."""
    shapes = tuple(tuple(value.const_value.shape.numpy()) for value in pair.values if value.const_value is not None)
    found = known.setdefault((pair.node.op_type, shapes), _Known()).find(pair)
    for tensor in (value.const_value for value in (*pair.values, *found.values)):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
    return found


class _Known:
    """Pairs of equal shapes that differ in more than rounding. With a thousand heads most are told apart by their first weight alone."""

    def __init__(self) -> None:
        self._pairs: list[_Pair] = []
        self._places: dict[bytes, int] = {}
        self._firsts = np.zeros(0, np.float32)

    def find(self, pair: _Pair) -> _Pair:
        first = pair.arrays[0][:1]
        near = set(np.flatnonzero(_are_but_last_bits(self._firsts, first)).tolist() if first.size else range(len(self._pairs)))
        if pair.digest in self._places:
            near.add(self._places[pair.digest])
        for place in sorted(near):
            other = self._pairs[place]
            if other.digest == pair.digest or _are_near(pair, other):
                return other
        self._places[pair.digest] = len(self._pairs)
        self._pairs.append(pair)
        self._firsts = np.append(self._firsts, first)
        return pair


def _are_near(left: _Pair, right: _Pair) -> bool:
    (weights, *bias), (other_weights, *other_bias) = left.arrays, right.arrays
    return (
        _same_but_last_bits(weights[:_FIRST], other_weights[:_FIRST])
        and all(np.abs(own - other).max() <= _BIAS * np.abs(other).max() for own, other in zip(bias, other_bias, strict=True))
        and _same_but_last_bits(weights, other_weights)
    )


def _same_but_last_bits(left: _Floats, right: _Floats) -> bool:
    return bool(_are_but_last_bits(left, right).all())


def _are_but_last_bits(left: _Floats, right: _Floats) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(left - right) <= _ULPS * np.spacing(np.maximum(np.abs(left), np.abs(right)))
    return near


def _replace(pair: _Pair, other: _Pair) -> None:
    """Let the node of `pair` read the values of `other`; what else reads its own keeps them."""
    for position, (own, known) in enumerate(zip(pair.values, other.values, strict=True), 1):
        value = ir.Value(name=f"{pair.node.outputs[0].name}/known{position}", const_value=known.const_value)
        value.shape, value.type = own.shape, own.type
        value.meta.update(known.meta)  # its digest
        graph = pair.node.graph
        assert isinstance(graph, ir.Graph)
        graph.register_initializer(value)
        pair.node.replace_input_with(position, value)
