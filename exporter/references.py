"""What a user may write to name a model: a file, a network of a library, or Python code; with weights of its own after an @."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.errors import BadModel
from exporter.load import check_file

ONNX, WEIGHTS = (".onnx",), (".safetensors", ".pth", ".pt", ".bin")
_IN_FOLDERS = (".onnx", ".safetensors", ".pth", ".pt")  # a .bin in a folder of models is more often a model's external data
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_LIBRARIES = ("timm/", "torchvision/")

Preprocess = Literal["in-graph", "none"]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class InputOptions:
    """What torch networks take. None: as the network's library, its file or the module itself says.

    preprocess: "in-graph" (uint8, shape (batch, height, width, 3), normalised inside) or "none" (float32,
    (batch, 3, height, width), normalised by the client). image_size: pixels of the square input. mean, std: per RGB channel, of
    values in [0, 1].
    """

    preprocess: Preprocess = "in-graph"
    image_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None


@dataclass(frozen=True)
class Reference:
    """A model as the user named it: `network`, with the weights in `file` if there is one, or `file` alone.

    network: a timm name, "torchvision/NAME", or "package.module:callable"; "" when the file says it, or the backbone.
    """

    text: str
    network: str = ""
    file: Path | None = None

    @property
    def onnx_file(self) -> Path | None:
        """The file, if it is an ONNX model."""
        return self.file if self.file is not None and self.file.suffix in ONNX else None

    @property
    def is_callable(self) -> bool:
        """Whether the network comes from Python code, which is run."""
        return _CALLABLE.fullmatch(self.network) is not None


def parse_reference(text: str | Path) -> Reference:
    """Return what `text` names: FILE, NETWORK, NETWORK@FILE, module:callable or module:callable@FILE. What exists as a file is one.

    Raises BadModel for a file that is missing, empty, a folder, or of no known kind.
    """
    path = Path(text)
    if path.exists() or _looks_like_a_file(str(text)):
        return Reference(str(text), file=_checked(path, ONNX + WEIGHTS))
    network, at, file = str(text).partition("@")
    return Reference(str(text), network, _checked(Path(file), WEIGHTS) if at else None)


def find_tasks(folder: Path, backbone: str | None = None) -> dict[str, Path]:
    """Return the task models in `folder` by file stem, sorted; other files, hidden ones and `backbone` are passed over.

    Raises BadModel when there is none, or two of one name.
    """
    if not folder.is_dir():
        raise BadModel(folder, "there is no such folder of task models.")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix not in _IN_FOLDERS or file.name.startswith(".") or file.is_dir() or _is_same(file, backbone):
            continue
        if file.stem in found:
            raise BadModel(folder, f"holds both {found[file.stem].name} and {file.name}; a task has one model.")
        found[file.stem] = file
    if not found:
        raise BadModel(folder, f"holds no task model ({', '.join(_IN_FOLDERS)}).")
    return found


def _looks_like_a_file(text: str) -> bool:
    if text.startswith((".", "/", "~")):
        return True
    if "@" in text or _CALLABLE.fullmatch(text):
        return False
    return Path(text).suffix in ONNX + WEIGHTS or ("/" in text and not text.startswith(_LIBRARIES))


def _checked(path: Path, suffixes: tuple[str, ...]) -> Path:
    check_file(path)
    if path.suffix not in suffixes:
        kinds = "an ONNX model (.onnx) nor " if ONNX[0] in suffixes else ""
        raise BadModel(path, f"is neither {kinds}a checkpoint (.safetensors, .pth, .pt, .bin).".replace("neither a ", "not a "))
    return path


def _is_same(file: Path, backbone: str | None) -> bool:
    return backbone is not None and Path(backbone).exists() and file.samefile(backbone)
