"""A file is no network, or none that can be split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from exporter.errors.base import ExportError


class BadModel(ExportError):
    """A file is not an ONNX model that the exporter can read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class GeneratesText(BadModel):
    """A model that writes text, a token after the other."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            path,
            f"is a {kind}, which generates text token by token; give a network for sequence or token classification, or an encoder.",
        )


class BadTokenizer(BadModel):
    """A file is no tokenizer that the library of that name reads."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, f"{reason}; give the tokenizer.json of the network.")


class FolderGiven(BadModel):
    """A folder stands where a model's file is wanted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "is a folder; give the file of one model.")


class BackboneGiven(BadModel):
    """A backbone file stands where a task's is wanted."""

    def __init__(self, path: Path, task: str) -> None:
        super().__init__(path, f"is a backbone, not a task; give it as the backbone, and not as the model of task {task!r}.")


class UnsupportedModel(ExportError):
    """A readable model of a form that cannot be split: an input for all rows, a fixed batch, no shapes."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


class CannotRun(ExportError):
    """ONNX Runtime cannot run a model. what: which; reason: in its own words."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"ONNX Runtime cannot run {what} ({reason}).")
        self.reason = reason


class UncountableShapes(ExportError):
    """Shapes that the exporter needs could not be inferred."""

    def __init__(self, name: str, values: Iterable[str]) -> None:
        super().__init__(
            f"{name}: no shape could be inferred for {', '.join(list(values)[:3])}; export the model with shape information."
        )


class NonFiniteWeights(ExportError):
    """A weight of a model is NaN or infinite: its training diverged, or the file is damaged."""

    def __init__(self, where: str, tensor: str) -> None:
        super().__init__(
            f"{where}: the tensor {tensor!r} holds NaN or infinite values; a network with such weights answers nothing."
        )


class RefusedModel(ExportError):
    """A model that was refused when it was tried out in a process of its own, in the words that were said there."""
