"""Weights that several segments hold, stored once: in data files beside their models, which are hard links of each other.

A model keeps its large weights inside, as long as no other segment has one of them. What several have is in data files, those weights
together that the same segments have, so that a model has few of them and each has no bytes in it that it does not need. A data
file is named by its content, and lies in the folder of every segment that uses it: ONNX follows no path out of a model's folder.
*Alternative: a file for each weight.* A network has hundreds. *Alternative: one folder of weights for all.* No runtime would open it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir

from contract.repository import Repository
from contract.repository.write import link_file
from exporter.build.weight_store import PAGE, SMALLEST_STORED, offsets_of, place_outside, save_with_weights, write_tensors
from exporter.graph.digests import weight_digest
from exporter.graph.shapes import bytes_of

_SMALLEST_FILE = 65_536  # bytes; a smaller group of weights stays in the models
_LOCATION, _OFFSET = "location", "offset"


@dataclass(frozen=True)
class Place:
    """Where a weight is: in the data file of that name, from byte `offset` on."""

    file: str
    offset: int


@dataclass(frozen=True)
class Held:
    """What segments hold that stay as they are, by the digest of the weight.

    files: where one is in a data file. paths: where such a file is, by its name. inside: the segments in whose models one is.
    """

    files: Mapping[bytes, Place] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)
    inside: Mapping[bytes, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredWeights:
    """What bytes of weights are stored several times, although several segments hold them of which some were written.

    copied: because the file system had no hard link for them. again: because a segment that stays as it is has them inside of its model.
    """

    copied: int = 0
    again: int = 0


@dataclass
class SharedWeights:
    """Which weights of segments to be written are in data files, and those files as far as they are written.

    places: by the weight's digest. contents: of the files to be made, their weights in order. of: by segment, the names of its data
    files, and how many bytes of each it uses. paths: of the files that are there. again, copied: as of `StoredWeights`.
    """

    places: Mapping[bytes, Place]
    contents: Mapping[str, Sequence[ir.Value]]
    of: Mapping[str, Mapping[str, int]]
    paths: dict[str, Path]
    again: int = 0
    copied: int = 0

    @property
    def stored(self) -> StoredWeights:
        """Return what is stored several times, when all segments are written."""
        return StoredWeights(self.copied, self.again)

    def save(self, model: ir.Model, segment: str, path: Path) -> None:
        """Write the `model` of `segment` as `path`, with its data files beside it."""
        files = self.of.get(segment, {})
        outside = set()
        for name, value in model.graph.initializers.items() if files else ():
            place = self.places.get(weight_digest(value)) if _is_large(value) else None
            if place is not None:
                place_outside(value, path.with_name(place.file), place.offset)
                outside.add(name)
        for file in files:
            self._put(path.with_name(file))
        save_with_weights(model, path, outside)

    def _put(self, path: Path) -> None:
        """Let the data file of that name stand at `path`, which is free."""
        source = self.paths.setdefault(path.name, path)
        if source == path:
            write_tensors(self.contents[path.name], path)
        elif not link_file(source, path):
            self.copied += path.stat().st_size


def weights_of(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Return the constants that `nodes` take, each once, in their order."""
    return list(dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and value.is_initializer()))


def plan_shared_weights(weights: Mapping[str, Iterable[ir.Value]], held: Held | None = None) -> SharedWeights:
    """Return where the large ones of the `weights` of segments, which are to be written, belong. held: by segments that stay."""
    held = held or Held()
    users: dict[bytes, set[str]] = {}
    values: dict[bytes, ir.Value] = {}
    for segment, found in weights.items():
        for value in filter(_is_large, found):
            users.setdefault(weight_digest(value), set()).add(segment)
            values.setdefault(weight_digest(value), value)
    groups: dict[frozenset[str], list[bytes]] = {}
    for digest, names in users.items():
        everywhere = frozenset(names) | held.inside.get(digest, frozenset())
        if digest not in held.files and len(everywhere) > 1:
            groups.setdefault(everywhere, []).append(digest)
    places = {digest: place for digest, place in held.files.items() if digest in users}
    contents = {}
    for digests in groups.values():
        group = [values[digest] for digest in digests]
        if sum(bytes_of(value) for value in group) >= _SMALLEST_FILE:
            name = _name_of(digests)
            contents[name] = group
            places |= {digest: Place(name, offset) for digest, offset in zip(digests, offsets_of(group), strict=True)}
    of: dict[str, dict[str, int]] = {}
    for digest, place in places.items():
        for segment in sorted(users[digest]):
            used = of.setdefault(segment, {})
            used[place.file] = used.get(place.file, 0) + bytes_of(values[digest])
    again = sum(bytes_of(values[digest]) for digest in places if digest in held.inside)
    return SharedWeights(places, contents, of, dict(held.paths), again)


def held_by(repository: Repository, models: Mapping[str, ir.Model]) -> Held:
    """Return what the segments of `repository` hold. models: their graphs, the weights of which have been taken over by a WeightStore."""
    files: dict[bytes, Place] = {}
    paths: dict[str, Path] = {}
    inside: dict[bytes, set[str]] = {}
    for name, model in models.items():
        own = set(repository.segments[name].weight_files)
        folder = repository.model_file(name).parent
        if own - paths.keys():
            files |= _places_in(repository.model_file(name), own - paths.keys())
        paths |= {file: folder / file for file in own if file not in paths}
        for value in filter(_is_large, model.graph.initializers.values()):
            inside.setdefault(weight_digest(value), set()).add(name)
    return Held(files, paths, {digest: frozenset(names) for digest, names in inside.items() if digest not in files})


def damaged_files(repository: Repository, segment: str) -> tuple[str, ...]:
    """Return which files of `segment`, which computes something else than it should, were changed, or may have been.

    A data file is named by all weights in it. A segment that uses a part of one cannot tell whether that is damaged, but another may; where
    no segment uses the whole any more, it may be the file or the model.
    """
    changed, unsure = [], []
    for name in repository.segments[segment].weight_files:
        file = repository.model_file(segment).with_name(name)
        models = [repository.model_file(other) for other, one in repository.segments.items() if name in one.weight_files]
        whole = next((model for model in models if _takes_all(model, file)), None)
        if whole is None:
            unsure.append(name)
        elif _name_of(tensor.digest_in(file.parent) for tensor in _tensors_in(whole, {name})) != name:
            changed.append(name)
    return tuple(changed) or (*unsure, "model.onnx")


def _takes_all(model: Path, file: Path) -> bool:
    """Return whether what `model` takes from a data file of that name is all of what is in `file`."""
    end = 0
    for tensor in _tensors_in(model, {file.name}):
        if tensor.place.offset - end >= PAGE:
            return False
        end = tensor.place.offset + tensor.size
    return end == file.stat().st_size


def _name_of(digests: Iterable[bytes]) -> str:
    """Return what a data file with these weights is called."""
    return f"weights-{hashlib.sha256(b''.join(digests)).hexdigest()[:16]}.bin"


def _places_in(model: Path, wanted: Collection[str]) -> dict[bytes, Place]:
    """Return the places of the weights of `model` that are in the data files `wanted`, by their digests, computed from the files."""
    return {tensor.digest_in(model.parent): tensor.place for tensor in _tensors_in(model, wanted)}


@dataclass(frozen=True)
class _Outside:
    """A weight in a data file, as a model says."""

    place: Place
    size: int
    dtype: ir.DataType
    shape: Sequence[int]

    def digest_in(self, folder: Path) -> bytes:
        """Return its digest, computed from the file in `folder`."""
        path, shape = folder / self.place.file, ir.Shape(self.shape)
        source = ir.ExternalTensor(path, self.place.offset, None, self.dtype, shape=shape, name="weight")
        digest = weight_digest(ir.Value(name="weight", const_value=source))
        source.release()
        return digest


def _tensors_in(model: Path, wanted: Collection[str]) -> list[_Outside]:
    """Return the weights of `model` that are in the data files `wanted`, in their order there."""
    found = []
    for tensor in onnx.load(model, load_external_data=False).graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data}
        if said.get(_LOCATION) in wanted:
            place, dtype = Place(said[_LOCATION], int(said.get(_OFFSET, "0"))), ir.DataType(tensor.data_type)
            found.append(_Outside(place, -(-prod(tensor.dims) * dtype.bitwidth // 8), dtype, tuple(tensor.dims)))
    return sorted(found, key=lambda one: one.place.offset)


def _is_large(value: ir.Value) -> bool:
    return bytes_of(value) >= SMALLEST_STORED
