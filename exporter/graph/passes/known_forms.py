"""Rewrites graphs once that differ in weights which no rewriting looks at, as tasks do that were trained from one network.

While a graph is rewritten its weights are given out on demand, and which are demanded is noted. What comes out then depends on nothing
but the graph and these: another graph that has them, too, comes out the same, with its own weights in the places of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from exporter.graph.digests import weight_digest

Rewrite = Callable[[ir.Model], ir.Model]
_Key = tuple[bytes, str]

_LEAST_SIZE = 65  # entries; fewer may be sizes or axes, which are looked at in any case
_KINDS = frozenset(ir.DataType[name] for name in ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8"))
_MOST = 4  # forms that are kept
_NOTHING = ir.Tensor(np.zeros(0, np.float32))  # in the place of a weight


class KnownForms:
    """What graphs became that were rewritten. keep: is given what a form holds of weights of its own, which may stay in memory else."""

    def __init__(self, keep: Callable[[ir.Model], None] = lambda model: None) -> None:
        self._keep = keep
        self._forms: dict[_Key, _Form] = {}

    def rewritten(self, model: ir.Model, rewrite: Rewrite) -> ir.Model:
        """Return what `rewrite` makes of `model`, which it may change in place. It must depend on nothing else."""
        key = _key(model)
        form = self._forms.get(key)
        if form is not None and form.fits(model):
            return form.filled(model)
        digests = _Digests(model)
        watch = _Watch(model)
        result = rewrite(model)
        places = watch.ended(result)
        if places is not None and not result.functions:
            template = result.clone()
            _empty(template, places)
            self._keep(template)
            self._forms = {**dict([*self._forms.items()][1 - _MOST :]), key: _Form(template, places, digests.of(watch.demanded))}
        return result


@dataclass(frozen=True)
class _Form:
    """A rewritten graph. places: from which weight of the given graph each of its own comes. demanded: digests of those looked at."""

    template: ir.Model
    places: Mapping[str, str]
    demanded: Mapping[str, bytes]

    def fits(self, model: ir.Model) -> bool:
        """Return whether `model`, whose graph is that of the form, has the weights that were looked at."""
        return all(weight_digest(model.graph.initializers[name]) == digest for name, digest in self.demanded.items())

    def filled(self, model: ir.Model) -> ir.Model:
        """Return the form with the weights of `model`."""
        copied = self.template.clone()
        copied.meta.update(model.meta)  # a clone has none
        for name, origin in self.places.items():
            value, given = copied.graph.initializers[name], model.graph.initializers[origin]
            assert given.const_value is not None
            _put(value, given.const_value)
            value.meta.clear()
            value.meta.update(given.meta)
        return copied


class _Digests:
    """Digests of the weights of `model`, as they were given, computed when they are asked for."""

    def __init__(self, model: ir.Model) -> None:
        self._given = {name: (value.const_value, value.meta) for name, value in _weights(model)}

    def of(self, names: set[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            tensor, meta = self._given[name]
            value = ir.Value(name=name, const_value=tensor)
            value.meta.update(meta)
            found[name] = weight_digest(value)
        return found


class _Watch:
    """Has the weights of `model` given out on demand until it has `ended`. demanded: the names of those that were."""

    def __init__(self, model: ir.Model) -> None:
        self.demanded: set[str] = set()
        self._given: dict[int, tuple[str, ir.LazyTensor, ir.TensorProtocol]] = {}
        for name, value in _weights(model):
            tensor = value.const_value
            assert tensor is not None
            shape = ir.Shape(tensor.shape.numpy())
            lazy = ir.LazyTensor(partial(self._give, name, tensor), dtype=tensor.dtype, shape=shape, name=tensor.name)
            self._given[id(lazy)] = name, lazy, tensor
            value.const_value = lazy

    def ended(self, result: ir.Model) -> dict[str, str] | None:
        """Put the weights back into `result`. Return from which each comes, by its name; None where one is no initializer any more."""
        places: dict[str, str] = {}
        for name, value in result.graph.initializers.items():
            if id(value.const_value) in self._given:
                places[name], _, tensor = self._given[id(value.const_value)]
                _put(value, tensor)
        return None if any(map(self._is_ours, _inner_tensors(result))) else places

    def _is_ours(self, tensor: object) -> bool:
        return id(tensor) in self._given

    def _give(self, name: str, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        self.demanded.add(name)
        return tensor


def _put(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    value.const_value = tensor
    if tensor.name != value.name:
        tensor.name = value.name


def _weights(model: ir.Model) -> list[tuple[str, ir.Value]]:
    return [
        (name, value)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.size >= _LEAST_SIZE and value.const_value.dtype in _KINDS
    ]


def _inner_tensors(model: ir.Model) -> Iterator[object]:
    """Yield the tensors that attributes hold, and the initializers of inner graphs."""
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.value
            elif attribute.type == ir.AttributeType.GRAPH:
                yield from (value.const_value for value in attribute.value.initializers.values())


def _empty(template: ir.Model, places: Mapping[str, str]) -> None:
    for name in places:
        template.graph.initializers[name].const_value = _NOTHING


def _key(model: ir.Model) -> _Key:
    """Return what two graphs have in common that differ in nothing but the values of weights."""
    weights = [
        (name, str(value.const_value.dtype), str(value.const_value.shape)) for name, value in _weights(model) if value.const_value
    ]
    with _without_weights(model):
        written = ir.to_proto(model).SerializeToString(deterministic=True)
    return hashlib.sha256(written).digest(), repr((weights, sorted(model.meta.items())))


@contextmanager
def _without_weights(model: ir.Model) -> Iterator[None]:
    weights = [(value, value.const_value) for _, value in _weights(model)]
    for value, _ in weights:
        value.const_value = _NOTHING
    try:
        yield
    finally:
        for value, tensor in weights:
            value.const_value = tensor
