"""The models that a user names: their files checked, folders of them listed, and what they take as their input."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from contract.references import ONNX, WEIGHTS, Reference, is_adapter, model_name, read_reference
from exporter.errors import BadModel
from exporter.sources.onnx_file import check_file

__all__ = ["InputOptions", "Preprocess", "Reference", "find_tasks", "parse_reference"]

_EXTERNAL_DATA = ".bin"  # more often than weights, where there is an ONNX file beside it

Preprocess = Literal["in-graph", "none"]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class InputOptions:
    """What torch networks take. None: as the repository remembers it; else as the network's library, its file or the module itself says.

    preprocess: "in-graph" (uint8, shape (batch, height, width, 3), normalised inside; so is None) or "none" (float32,
    (batch, 3, height, width), normalised by the client). image_size: pixels of the square input. mean, std: per RGB channel, of
    values in [0, 1].
    """

    preprocess: Preprocess | None = None
    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None

    @property
    def is_in_graph(self) -> bool:
        """Whether images are normalised inside the network."""
        return self.preprocess != "none"

    def over(self, other: InputOptions) -> InputOptions:
        """Return these, and where they say nothing what `other` says."""
        chosen = {one.name: getattr(self, one.name) for one in fields(self)}
        return InputOptions(**{name: getattr(other, name) if value is None else value for name, value in chosen.items()})


def parse_reference(text: str | Path) -> Reference:
    """Return what `text` names, as `contract.references.read_reference` reads it, its file checked.

    Raises BadModel for a file that is missing, empty, of no known kind, or a folder other than one with an adapter.
    """
    reference = read_reference(text)
    if reference.folder is not None and not reference.folder.is_dir():
        raise BadModel(reference.folder, "there is no such folder of transformers; models are read from this machine alone.")
    if reference.file is not None:
        _check(reference.file, WEIGHTS if reference.network else ONNX + WEIGHTS)
    return reference


def find_tasks(folder: Path, backbone: str | None = None) -> dict[str, Path]:
    """Return the task models in `folder` by their names without suffix, sorted, adapters by their folder's; hidden ones and `backbone` not.

    A .bin is taken for the data of a model where there is an ONNX file. Raises BadModel when there is none, or two of one name.
    """
    if not folder.is_dir():
        raise BadModel(folder, "there is no such folder of task models.")
    found: dict[str, Path] = {}
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    kinds = ONNX + tuple(kind for kind in WEIGHTS if kind != _EXTERNAL_DATA or not any(file.suffix in ONNX for file in files))
    for file in files:
        if not _is_model(file, kinds) or _is_same(file, backbone):
            continue
        name = file.name if file.is_dir() else model_name(file)
        if name in found:
            raise BadModel(folder, f"holds both {found[name].name} and {file.name}; a task has one model.")
        found[name] = file
    if not found:
        raise BadModel(folder, f"holds no task model ({', '.join(kinds)}).")
    return found


def _check(path: Path, suffixes: tuple[str, ...]) -> None:
    if is_adapter(path):
        return
    check_file(path)
    if not path.name.endswith(suffixes):
        kinds = "an ONNX model (.onnx) nor " if ONNX[0] in suffixes else ""
        raise BadModel(path, f"is neither {kinds}a checkpoint ({', '.join(WEIGHTS)}).".replace("neither a ", "not a "))


def _is_model(file: Path, kinds: tuple[str, ...]) -> bool:
    return is_adapter(file) if file.is_dir() else file.name.endswith(kinds)


def _is_same(file: Path, backbone: str | None) -> bool:
    return backbone is not None and Path(backbone).exists() and file.samefile(backbone)
