"""Where task models come from: ONNX files of any producer, and our task checkpoints. torch is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporter.errors import BadModel, ExportError
from exporter.load import load_onnx
from exporter.task_model import TaskModel

if TYPE_CHECKING:
    from exporter.torch_export import BackboneExporter

Preprocess = Literal["in-graph", "none"]
LoadTaskModel = Callable[[], TaskModel]


@dataclass(frozen=True)
class Sources:
    """Functions that load the task models, one at a time, so that memory holds one of them and not all."""

    tasks: Mapping[str, LoadTaskModel]
    backbone: LoadTaskModel | None = None


def open_sources(backbone: str | None, tasks: Mapping[str, Path], preprocess: Preprocess = "in-graph") -> Sources:
    """Return how to load `tasks` (ONNX files or task checkpoints) and `backbone` (an ONNX file, a backbone file, or a network's name).

    Raises BadModel for a file that is missing or of no known kind, ExportError when checkpoints come without a backbone to put them on.
    """
    kinds = {name: _kind(path) for name, path in tasks.items()}
    exporter = None
    if backbone is not None and not backbone.endswith(".onnx"):
        exporter = _torch_exporter(backbone, preprocess)
    loaders = {name: _task_loader(name, path, kinds[name], exporter) for name, path in tasks.items()}
    if backbone is None:
        return Sources(loaders)
    return Sources(loaders, exporter.export_backbone if exporter else lambda: TaskModel(load_onnx(Path(backbone))))


def _kind(path: Path) -> str:
    if not path.is_file():
        raise BadModel(path, "there is no such file.")
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix == ".safetensors":
        return "checkpoint"
    raise BadModel(path, "is neither an ONNX model (.onnx) nor a task checkpoint (.safetensors).")


def _task_loader(name: str, path: Path, kind: str, exporter: BackboneExporter | None) -> LoadTaskModel:
    if kind == "onnx":
        return lambda: TaskModel(load_onnx(path), provenance={"file": path.name})
    if exporter is None:
        raise ExportError(
            f"Task {name!r} is a checkpoint of tuned blocks; give the network that it was tuned on with --backbone, "
            "as a name or a backbone file."
        )
    checkpoint = _load_checkpoint(path)  # now, so that a broken file is refused before anything is traced
    return lambda: exporter.export_task(checkpoint)


def _torch_exporter(backbone: str, preprocess: Preprocess) -> BackboneExporter:
    from exporter.torch_export import BackboneExporter
    from tuning.backbone import load_backbone

    return BackboneExporter(load_backbone(backbone), preprocess)


def _load_checkpoint(path: Path) -> Any:
    from tuning.checkpoint import load_task

    return load_task(path)
