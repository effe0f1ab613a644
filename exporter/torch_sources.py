"""How torch task models are loaded. Those of one architecture, input size and preprocessing share one trace, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.errors import BadModel, ExportError, LabelsDoNotFit, NeedsBackbone
from exporter.labels import read_labels
from exporter.references import InputOptions, Reference
from exporter.task_model import TaskModel
from exporter.torch_export import BackboneExporter, NetworkExporter, refuse_non_finite
from exporter.torch_networks import Architecture, open_architecture, overridden
from tuning.backbone import Backbone, load_backbone
from tuning.checkpoint import TaskCheckpoint, check_backbone, load_task, read_kind

LoadTaskModel = Callable[[], TaskModel]


class TorchSources:
    """Opens torch models one by one: the backbone first, then tasks. What can be refused without tracing is refused on opening."""

    def __init__(self, options: InputOptions) -> None:
        self._options = options
        self._architectures: dict[tuple[str, bool], Architecture] = {}
        self._exporters: dict[tuple[str, int, int], NetworkExporter] = {}
        self._backbone: Backbone | None = None
        self._backbone_architecture: Architecture | None = None

    def open_backbone(self, reference: Reference) -> LoadTaskModel:
        """Return how to load the backbone, and put later tasks on it. Raises ExportError or tuning's errors."""
        if reference.is_callable:
            self._backbone_architecture = self._architecture(reference)
            return self._whole(reference, self._backbone_architecture, ())
        backbone = self._load_backbone(reference)
        self._backbone = backbone
        self._backbone_architecture = Architecture.of_backbone(backbone)
        refuse_non_finite(reference.text, backbone.network.state_dict())
        return self._on_backbone(backbone).export_backbone

    def open_task(self, name: str, reference: Reference) -> LoadTaskModel:
        """Return how to load the task `name`. Raises ExportError or tuning's errors when it does not fit its network."""
        if reference.network:
            architecture = self._architecture(reference)
        elif reference.file is not None and read_kind(reference.file) == "task":
            return self._open_tuned(name, reference.file)
        else:
            architecture = self._for_weights(name, reference)
        outputs = architecture.check(reference.file) if reference.file else 0
        labels = read_labels(name, reference.file) if reference.file else ()
        if labels and outputs and len(labels) != outputs:
            raise LabelsDoNotFit(name, len(labels), outputs)
        return self._whole(reference, architecture, labels)

    def _load_backbone(self, reference: Reference) -> Backbone:
        if reference.network:
            backbone = load_backbone(reference.network, reference.file, image_size=self._options.image_size)
        elif reference.file is not None and read_kind(reference.file) == "backbone":
            backbone = load_backbone(reference.file, image_size=self._options.image_size)
        else:
            raise BadModel(
                Path(reference.text), "is no backbone file; give weights from elsewhere with their network, as NETWORK@FILE."
            )
        how = overridden(backbone.spec.preprocessing, self._options)
        return Backbone(replace(backbone.spec, preprocessing=how), backbone.network)

    def _open_tuned(self, name: str, file: Path) -> LoadTaskModel:
        backbone = self._backbone
        if backbone is None:
            if self._backbone_architecture is None:
                raise NeedsBackbone(name, file)
            raise ExportError(
                f"Task {name!r} was tuned on a timm or torchvision network; give that with --backbone, by its name."
            )
        checkpoint = _load_tuned(file)
        check_backbone(backbone.spec, checkpoint.backbone)
        exporter = self._on_backbone(backbone)
        return lambda: exporter.export_task(_load_tuned(file))

    def _for_weights(self, name: str, reference: Reference) -> Architecture:
        file = Path(reference.text)
        if read_kind(file) == "backbone":
            raise BadModel(file, f"is a backbone, not a task; give it with --backbone instead of --task {name}.")
        if self._backbone_architecture is None:
            raise NeedsBackbone(name, file)
        return self._backbone_architecture

    def _architecture(self, reference: Reference) -> Architecture:
        pretrained = reference.file is None and not reference.is_callable
        key = (reference.network, pretrained)
        if key not in self._architectures:
            self._architectures[key] = open_architecture(reference, self._options, pretrained=pretrained)
        return self._architectures[key]

    def _whole(self, reference: Reference, architecture: Architecture, labels: tuple[str, ...]) -> LoadTaskModel:
        exporter = self._exporter(architecture)
        provenance = {"network": reference.network or architecture.name.partition(" ")[0]}
        if reference.file is not None:
            provenance["file"] = reference.file.name

        def load() -> TaskModel:
            network = architecture.with_weights(reference.file) if reference.file else architecture.network
            return TaskModel(exporter.export(network, architecture.preprocessing), labels, architecture.preprocessing, provenance)

        return load

    def _on_backbone(self, backbone: Backbone) -> BackboneExporter:
        return BackboneExporter(backbone, exporter=self._exporter(Architecture.of_backbone(backbone)))

    def _exporter(self, architecture: Architecture) -> NetworkExporter:
        key = (architecture.name, architecture.height, architecture.width)
        if key not in self._exporters:
            self._exporters[key] = NetworkExporter(architecture.height, architecture.width, self._options.preprocess)
        return self._exporters[key]


def _load_tuned(file: Path) -> TaskCheckpoint:
    checkpoint = load_task(file)
    refuse_non_finite(str(file), checkpoint.tensors)
    return checkpoint
