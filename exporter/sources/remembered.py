"""What a repository remembers of its export: its backbone, found again where a task needs it, and what images were made into.

What was found by a repository's word is taken only if it is what was exported: a file by its hash, published weights by theirs. Python code
is never run because a repository names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import onnx

from contract.references import Reference, read_reference
from contract.repository.origin import BackboneRecord, Origin
from contract.repository.read import read_origin
from contract.repository.write import recover
from exporter.errors import BackboneChanged, BackboneIsCode, BackboneMoved, BadModel
from exporter.sources.references import InputOptions
from exporter.sources.tensors import embedded_tensors, is_external

_FOLDER_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "adapter_config.json", "adapter_model.*")


@dataclass(frozen=True)
class Remembered:
    """What the repository at `path` was exported with. Without a path: nothing."""

    path: Path | None = None
    origin: Origin = field(default_factory=Origin)

    @classmethod
    def by(cls, path: Path) -> Remembered:
        """Return what the repository at `path` remembers; nothing where it is none, which is said by whoever changes it."""
        recover(path)
        return cls(path, read_origin(path))

    def backbone_for(self, tasks: Iterable[Reference]) -> Reference | None:
        """Return the backbone where one of `tasks` needs one; None: none does, or nothing is remembered.

        Raises BackboneMoved, BackboneChanged, BackboneIsCode.
        """
        record = self.origin.backbone
        if record is None or not any(needs_backbone(task) for task in tasks):
            return None
        named = _reference_of(record)
        if named.is_callable:
            raise BackboneIsCode(record)
        return self._find(record, named) if record.has_file else named

    def checked(self, found: BackboneRecord) -> BackboneRecord:
        """Return the backbone that is remembered. Raises BackboneChanged unless `found`, which its name gave, has the same weights."""
        record = self.origin.backbone or found
        if record.network == found.network and record.weights_sha256 != found.weights_sha256:
            where = f"what {record.reference!r} gives"
            raise BackboneChanged(record, where, (found.weights_sha256, found.size_bytes))
        return record

    def fill(self, options: InputOptions, *, tuned: bool) -> tuple[InputOptions, str]:
        """Return `options` with what they leave open as the export had it, and which that is, a sentence or "".

        tuned: whether tasks say themselves what becomes of their images.
        """
        known = _options_of(self.origin)
        filled = options.over(InputOptions(known.preprocess) if tuned else known)
        taken = [
            f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in vars(filled).items()
            if value != getattr(options, name)
        ]
        return filled, f"As the repository was exported: {'; '.join(taken)}." if taken else ""

    def _find(self, record: BackboneRecord, named: Reference) -> Reference:
        """Return `named` with its file where it is found: as it was given, or from the folder of the repository."""
        given = named.folder or named.file or Path(record.reference)
        places = [given] if self.path is None else [given, self.path.parent / given]
        places = [*{place.resolve(): place for place in reversed(places)}.values()][::-1]
        there = [place for place in places if place.exists()]
        contents = {place: _content_of(_at(named, place)) for place in there}
        for place, content in contents.items():
            if content == (record.sha256, record.size_bytes):
                return _at(named, place)
        if there:
            raise BackboneChanged(record, str(there[0]), contents[there[0]])
        raise BackboneMoved(record, places)


def origin_of(options: InputOptions, backbone: BackboneRecord | None) -> Origin:
    """Return what an export with these is told."""
    preprocess = options.preprocess if options.preprocess == "none" else ""
    return Origin(backbone, preprocess, options.image_size, options.mean, options.std)


def file_record(reference: Reference) -> BackboneRecord | None:
    """Return what is remembered of a backbone with a file, or a folder; None: it has none. Raises BadModel."""
    if reference.file is None and reference.folder is None:
        return None
    return BackboneRecord(reference.text, *_content_of(reference))


def weights_record(reference: Reference, weights_sha256: str, size_bytes: int, network: str) -> BackboneRecord:
    """Return what is remembered of a backbone that has been loaded. Raises BadModel."""
    record = file_record(reference) or BackboneRecord(reference.text, weights_sha256, size_bytes)
    return BackboneRecord(record.reference, record.sha256, record.size_bytes, weights_sha256, network)


def remembered_then(before: Origin, given: Origin) -> tuple[Origin, str]:
    """Return what a repository that remembers `before` remembers after an addition that was told `given`, and what to know of that.

    That goes on after "the backbone", or is "".
    """
    there, new = before.backbone, given.backbone
    if new is None:
        return before, ""
    if there is None:
        return given if before == Origin() else _with_backbone(before, new), ""
    if there.is_same(new):
        return _with_backbone(before, new), ""
    return before, (f"is {new}, another one than {there}, which the repository was exported with and goes on remembering.")


def _content_of(reference: Reference) -> tuple[str, int]:
    """Return the SHA-256 (hex) of the file, or files, that `reference` is read from, and their bytes. Raises BadModel."""
    digest, size = hashlib.sha256(), 0
    where = reference.folder or reference.file or Path(reference.text)
    try:
        for file in _files_of(where):
            if file != where:
                digest.update(f"{file.relative_to(where if where.is_dir() else where.parent)}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
                    size += len(chunk)
    except OSError as error:
        raise BadModel(where, f"cannot be read: {error.strerror}.") from error
    return digest.hexdigest(), size


def _files_of(where: Path) -> Iterator[Path]:
    if where.is_dir():
        yield from sorted({file for pattern in _FOLDER_FILES for file in where.glob(pattern)})
        return
    yield where
    if where.suffix == ".onnx":
        tensors = embedded_tensors(onnx.ModelProto.FromString(where.read_bytes()))
        entries = (entry for tensor in tensors if is_external(tensor) for entry in tensor.external_data)
        yield from sorted({where.parent / entry.value for entry in entries if entry.key == "location"})


def needs_backbone(task: Reference) -> bool:
    """Whether `task` is a file of weights alone."""
    return task.file is not None and not task.network and task.onnx_file is None


def _reference_of(record: BackboneRecord) -> Reference:
    """Return what `record` names; what had no file is none, whatever files happen to be here."""
    return read_reference(record.reference) if record.has_file else Reference(record.reference, record.reference)


def _at(named: Reference, place: Path) -> Reference:
    if named.folder is not None:
        return Reference(f"hf:{place}", f"hf:{place}")
    return Reference(f"{named.network}@{place}" if named.network else str(place), named.network, place)


def _with_backbone(origin: Origin, backbone: BackboneRecord) -> Origin:
    return msgspec.structs.replace(origin, backbone=backbone)


def _options_of(origin: Origin) -> InputOptions:
    return InputOptions("none" if origin.preprocess == "none" else None, origin.image_size, origin.mean, origin.std)
