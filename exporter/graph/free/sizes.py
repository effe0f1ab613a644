"""The free sizes of a model: which of its inputs' axes they are, what is known of them, and at which sizes to look at it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from keyword import iskeyword

import onnx_ir as ir

from contract.repository.free_sizes import FreeSize, references_of
from exporter.graph.free.expressions import evaluate, invert, names_in

_BATCH = "batch"  # what the batch is called in the models of a repository
_TEXT, _IMAGE = 128, 224  # references where nobody says another
_SIZES = "espalier_free_sizes"  # in a model's `meta`
_OTHER = re.compile(r"\W", re.ASCII)


def axes_of(value: ir.Value) -> tuple[str, ...]:
    """Return what the axes of an input behind the batch are called, "" where one is fixed."""
    return tuple("" if isinstance(dim, int) else str(dim.value or "?") for dim in tuple(value.shape or ())[1:])


def is_settled(model: ir.Model) -> bool:
    """Return whether nothing is to be found out of the free sizes of `model`."""
    known = model.meta.get(_SIZES, {})
    return all(not name or name in known for value in model.graph.inputs for name in axes_of(value))


def free_sizes(model: ir.Model) -> dict[str, FreeSize]:
    """Return the free sizes of `model` by name, as they were set; where they were not, with the usual references."""
    known = model.meta.get(_SIZES, {})
    found: dict[str, FreeSize] = {}
    for value in model.graph.inputs:
        axes = axes_of(value)
        for name in axes:
            if name:
                found.setdefault(name, known.get(name) or FreeSize(_IMAGE if len(axes) == 3 else _TEXT))
    return found


def set_free_sizes(model: ir.Model, sizes: Mapping[str, FreeSize]) -> None:
    """Keep what is known of the free sizes of `model`."""
    model.meta[_SIZES] = dict(sizes)


def references(model: ir.Model) -> dict[str, int]:
    """Return the reference of each free size of `model`."""
    return references_of(free_sizes(model))


def name_axes(model: ir.Model) -> list[str]:
    """Give each free axis a name that can be computed with, in place; return what was assumed, a sentence each.

    A name that is the batch's own gets another: an axis that is as long as the batch is no free one.
    """
    sentences = []
    batch = {str(value.shape[0].value) for value in model.graph.inputs if value.shape and not isinstance(value.shape[0], int)}
    taken = {_BATCH, *(name for value in model.graph.inputs for name in axes_of(value))}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not axis or isinstance(dim, int) or value.shape is None:
                continue
            if dim.value is None:
                name = _free_name(f"{value.name}_{axis}", taken)
                sentences.append(
                    f"leaves axis {axis} of the input {value.name!r} open without a name; it is called {name!r} here."
                )
            elif dim.value in batch:
                continue
            else:
                name = _plain(str(dim.value)) if dim.value != _BATCH else _free_name(_BATCH, taken)
            name_axis(value, axis, name)
            taken.add(name)
    return sentences


def name_axis(value: ir.Value, axis: int, name: str) -> None:
    """Call an axis of `value` `name`."""
    dims = list(value.shape or ())
    value.shape = ir.Shape([*dims[:axis], name, *dims[axis + 1 :]])


def _free_name(wanted: str, taken: set[str]) -> str:
    name = _plain(wanted)
    while name in taken:
        name += "_"
    return name


def _plain(name: str) -> str:
    plain = _OTHER.sub("_", name)
    return plain if plain.isidentifier() and not iskeyword(plain) else f"size_{plain}"


def points(sizes: Mapping[str, FreeSize]) -> tuple[dict[str, int], list[list[dict[str, int]]]]:
    """Return at which sizes to look at a network to see what depends on which: the references, and for each size some with it changed.

    sizes: some may be computed from others, which need not be among them ("height/8"). Each point has the sizes of all.
    """
    bases = _bases(sizes)
    start = references_of(bases)
    groups = [[{**start, name: other} for other in _others(size)] for name, size in bases.items()]
    changed = [[point for base in group if (point := _at(base, sizes)) is not None] for group in groups]
    return references_of(sizes), changed


def trials(sizes: Mapping[str, FreeSize]) -> list[dict[str, int]]:
    """Return sizes to compare a network at, beside the references: the least ones, and odd ones that differ from each other.

    sizes: those of its inputs.
    """
    bases = _bases(sizes)
    odd = {
        name: _taken(size, size.reference // 2 - 2 * place - 1 + size.reference // 2 % 2)
        for place, (name, size) in enumerate(bases.items())
    }
    chosen = [{name: size.least for name, size in bases.items()}, odd]
    start = references_of(bases)
    different = [point for index, point in enumerate(chosen) if point != start and point not in chosen[:index]]
    return [point for base in different if (point := _at(base, sizes)) is not None]


def _taken(size: FreeSize, wanted: int) -> int:
    """Return the size nearest to `wanted` from below that the network takes, the least one where none is."""
    return size.nearest(max(wanted, size.least))[0]


def size_at(name: str, sizes: Mapping[str, int]) -> int | None:
    """Return the size called `name` at `sizes`, None if it does not follow from these."""
    try:
        return sizes[name] if name in sizes else evaluate(name, sizes)
    except (KeyError, ValueError):
        return None


def _at(base: Mapping[str, int], sizes: Mapping[str, FreeSize]) -> dict[str, int] | None:
    point = {name: base[name] if name in base else evaluate(name, base) for name in sizes}
    return point if all(size > 0 for size in point.values()) else None


def _bases(sizes: Mapping[str, FreeSize]) -> dict[str, FreeSize]:
    """Return the sizes that `sizes` are computed from, as far as they can be told; what cannot be is one of its own."""
    bases = {name: size for name, size in sizes.items() if names_in(name) == {name}}
    wanted: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        if len(names := names_in(name)) == 1:
            wanted.setdefault(min(names), {})[name] = size.reference
    for base, computed in wanted.items():
        if base not in bases and (reference := invert(computed, base)) is not None:
            bases[base] = FreeSize(reference)
    return bases | {name: size for name, size in sizes.items() if not names_in(name) <= bases.keys()}


def _others(size: FreeSize) -> list[int]:
    """Return sizes beside the reference, as far as there are such: one that is even, one that is odd, and the least."""
    one = size.reference
    even = [2 * one, one // 2 // 2 * 2, one + 2]
    odd = [one - 1 - one % 2, one + 1 + one % 2, one // 2 - 1 + one // 2 % 2]
    return [*dict.fromkeys([*_first_allowed(even, size), *_first_allowed(odd, size), *_first_allowed([size.least], size)])]


def _first_allowed(candidates: list[int], size: FreeSize) -> Iterator[int]:
    for other in candidates:
        if size.least <= other <= (size.most or other) and other != size.reference:
            yield other
            return
