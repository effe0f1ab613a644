"""Where task models come from: ONNX files of any producer, and torch networks. torch is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.labels import read_labels
from exporter.load import load_onnx
from exporter.preflight import preflight
from exporter.references import InputOptions, Preprocess, Reference, parse_reference
from exporter.task_model import TaskModel

if TYPE_CHECKING:
    from exporter.torch_sources import TorchSources

__all__ = ["InputOptions", "LoadTaskModel", "Preprocess", "Sources", "open_sources"]

LoadTaskModel = Callable[[], TaskModel]


@dataclass(frozen=True)
class Sources:
    """Functions that load the task models, one at a time, so that memory holds one of them and not all."""

    tasks: Mapping[str, LoadTaskModel]
    backbone: LoadTaskModel | None = None


def open_sources(
    backbone: str | Path | None, tasks: Mapping[str, str | Path], options: InputOptions | Preprocess = "in-graph"
) -> Sources:
    """Return how to load `tasks` and `backbone`, each named as `exporter.references.parse_reference` reads it.

    A file of weights alone belongs to the backbone: a task checkpoint of ours, or a whole state dict of the backbone's architecture,
    whose head may have a size of its own. Every file is checked now, before anything is traced: ONNX files are tried out in a process
    of their own, state dicts must fit their network. Raises ExportError or, for networks and checkpoints, TuningError.
    """
    options = InputOptions(options) if isinstance(options, str) else options
    base = parse_reference(backbone) if backbone is not None else None
    named = {name: parse_reference(text) for name, text in tasks.items()}
    references = [reference for reference in (base, *named.values()) if reference is not None]
    preflight([file for reference in references if (file := reference.onnx_file) is not None])
    opener = _Opener(options)
    load_base = opener.open_backbone(base) if base is not None else None
    return Sources({name: opener.open_task(name, reference) for name, reference in named.items()}, load_base)


class _Opener:
    """Opens ONNX files itself and leaves the rest to TorchSources, which comes into being when it is needed."""

    def __init__(self, options: InputOptions) -> None:
        self._options = options

    def open_backbone(self, reference: Reference) -> LoadTaskModel:
        file = reference.onnx_file
        if file is None:
            return self._torch.open_backbone(reference)
        return lambda: TaskModel(load_onnx(file))

    def open_task(self, name: str, reference: Reference) -> LoadTaskModel:
        file = reference.onnx_file
        if file is None:
            return self._torch.open_task(name, reference)
        labels = read_labels(name, file)
        return lambda: TaskModel(load_onnx(file), labels, provenance={"file": file.name})

    @cached_property
    def _torch(self) -> TorchSources:
        from exporter.torch_sources import TorchSources

        return TorchSources(self._options)
