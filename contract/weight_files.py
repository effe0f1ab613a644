"""What a repository's data files take on disk: those of one name are one file, unless a copy of the repository lost the hard links."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from contract.costs import bytes_in_common
from contract.repository import Repository, Segment


def bytes_copied(repository: Repository) -> int:
    """Return how many bytes data files take that are no hard links of others of their name. What is not there counts as nothing."""
    found: dict[str, dict[tuple[int, int], int]] = {}
    for name, segment in repository.segments.items():
        for file in segment.weight_files:
            with suppress(OSError):
                status = repository.model_file(name).with_name(file).stat()
                found.setdefault(file, {})[status.st_dev, status.st_ino] = status.st_size
    return sum(sum(sizes.values()) - max(sizes.values()) for sizes in found.values())


def bytes_stored_once(repository: Repository) -> int:
    """Return how many bytes the weights in data files would take more, if each segment had those that it uses for itself."""
    return max(0, bytes_in_common(repository, repository.segments) - bytes_copied(repository))


def what_is_damaged(segment: Segment, sizes: Mapping[str, int]) -> str:
    """Return what of `segment`, which cannot be loaded, is damaged as far as the sizes of its files tell, in a clause.

    sizes: in bytes, of the files beside its model.onnx by their names.
    """
    for file, used in segment.weight_files.items():
        if file not in sizes:
            return f"its {file} is not there"
        if sizes[file] < used:
            return f"its {file} is cut short, to {sizes[file]:,} bytes of {used:,} at least"
    files = " or its ".join(["model.onnx", *segment.weight_files])
    return f"its {files} is damaged or does not fit its config.pbtxt"
