"""Requests to measure a repository with, and what they are, in a sentence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.framework.errors import NoSuchSize, SizeOutside, TooManyRowsAtOnce
from benchmarks.repository.question import ALL_SIZES, Question
from contract.dtypes import BYTES, NUMPY_DTYPES, Array
from contract.repository import Repository, Task, TensorSpec
from contract.repository.sample import sample_rows

_UNKNOWN = 64  # for a free size of which nobody knows anything
_WORDS = b"a few words"


@dataclass(frozen=True)
class Sizes:
    """A number for each free size by name; unnamed: for those of models that espalier did not export, whose sizes have no names."""

    named: Mapping[str, int]
    unnamed: int

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the shape of a row of `spec`."""
        names = spec.axes or ("",) * len(spec.shape)
        return tuple(
            (self.named.get(name, self.unnamed) if size < 0 else size) for size, name in zip(spec.shape, names, strict=True)
        )


def choose_sizes(tasks: Collection[Task], question: Question) -> Sizes:
    """Return the sizes of the requests: as `question` says, else the largest reference that all of `tasks` take.

    Raises NoSuchSize, SizeOutside, and TooManyRowsAtOnce for more rows than one of `tasks` takes.
    """
    names = sorted({name for task in tasks for name in task.sizes})
    is_open = any(_is_open(spec) for task in tasks for spec in task.inputs)
    for asked in question.sizes:
        if asked not in names and not (asked == ALL_SIZES and (names or is_open)):
            raise NoSuchSize(asked, names)
    for task in tasks:
        most = 1 if task.plain is not None and not task.plain.has_rows else task.max_batch_rows
        if question.rows > most:
            raise TooManyRowsAtOnce(task.name, question.rows, most)
    every = question.sizes.get(ALL_SIZES)
    return Sizes({name: _size(tasks, name, question.sizes.get(name, every)) for name in names}, every or _UNKNOWN)


def _size(tasks: Iterable[Task], name: str, asked: int | None) -> int:
    """Return the size `name` of requests: `asked`, else the largest reference that all of `tasks` take. Raises SizeOutside."""
    known = [(task.name, task.sizes[name]) for task in tasks if name in task.sizes]
    reference = max(size.reference for _, size in known)
    found = asked or min([reference, *(size.most for _, size in known if size.most is not None)])
    for task, size in known:
        if not size.least <= found <= (size.most or found):
            raise SizeOutside(task, name, found, size.least, size.most)
    return found


def _is_open(spec: TensorSpec) -> bool:
    """Whether a size of `spec` is free, and has no name."""
    return any(size < 0 and not name for size, name in zip(spec.shape, spec.axes or ("",) * len(spec.shape), strict=True))


def make_rows(repository: Repository, names: Sequence[str], sizes: Sizes, rows: int, seed: int = 0) -> dict[str, Array]:
    """Return what a request for the tasks `names` brings, of shape (rows, ...), by name.

    Images and numbers are the sample that exports record; integers with known values are random ones of them, others 0 or 1.
    """
    feed: dict[str, Array] = {}
    generator = np.random.default_rng(seed)
    values = _common_values([repository.tasks[name] for name in names])
    for name in names:
        for place, spec in enumerate(repository.tasks[name].inputs):
            if spec.name not in feed:
                feed[spec.name] = _rows(spec, sizes.shape(spec), rows, place, values.get(spec.name), generator)
    return feed


def describe_rows(tasks: Sequence[Task], sizes: Sizes, rows: int) -> str:
    """Return a sentence that says what requests are made of."""
    specs = {spec.name: spec for task in tasks for spec in task.inputs}
    known = {name for task in tasks for name in task.values}
    kinds: dict[str, list[str]] = {}
    for name, spec in sorted(specs.items()):
        kinds.setdefault(_kind(spec, name in known), []).append(name)
    counted = f"{rows} row" if rows == 1 else f"{rows} rows"
    made = "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items())
    return f"Each request has {counted}{_describe_sizes(specs.values(), sizes)}; {made}."


def _kind(spec: TensorSpec, has_values: bool) -> str:
    if spec.dtype == BYTES:
        return "a few words"
    if has_values:
        return "random numbers of the recorded vocabulary"
    integers = spec.dtype != "UINT8" and NUMPY_DTYPES[spec.dtype].kind in "iub"
    return "0 or 1" if integers else "the sample that exports record, coarse patches and noise"


def _describe_sizes(specs: Iterable[TensorSpec], sizes: Sizes) -> str:
    words = [f"{name.replace('_', ' ')} {size}" for name, size in sizes.named.items()]
    if any(map(_is_open, specs)):
        words.append(f"{sizes.unnamed} for each size that its model leaves open")
    return f", {', '.join(words)}" if words else ""


def _common_values(tasks: Iterable[Task]) -> dict[str, tuple[int, int]]:
    """Return the values that all of `tasks` take, by the input's name."""
    found: dict[str, tuple[int, int]] = {}
    for task in tasks:
        for name, (least, most) in task.values.items():
            known = found.get(name, (least, most))
            found[name] = max(least, known[0]), min(most, known[1])
    return found


def _rows(
    spec: TensorSpec,
    shape: tuple[int, ...],
    rows: int,
    place: int,
    values: tuple[int, int] | None,
    generator: np.random.Generator,
) -> Array:
    if spec.dtype == BYTES:
        words = np.empty((rows, *shape), object)
        words[...] = _WORDS
        return words
    if values is not None:
        return generator.integers(values[0], values[1], (rows, *shape), endpoint=True).astype(NUMPY_DTYPES[spec.dtype])
    return sample_rows(TensorSpec(spec.name, spec.dtype, shape), rows, place)
