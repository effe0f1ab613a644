"""How torch task models are loaded. Those of one architecture, input size and preprocessing share one trace, wherever they come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from contract.preprocessing import Preprocessing
from contract.references import is_adapter
from contract.repository.origin import BackboneRecord
from exporter.errors import (
    BackboneGiven,
    BadModel,
    ContradictsTask,
    DifferentImages,
    LabelsDoNotFit,
    NeedsBackbone,
    NeedsNamedBackbone,
)
from exporter.sources.references import InputOptions, Reference
from exporter.sources.remembered import Remembered, weights_record
from exporter.sources.task_model import LoadTaskModel, TaskModel, Tuned, read_labels
from exporter.torch.export import BackboneExporter, NetworkExporter
from exporter.torch.finite import buffer_names, refuse_non_finite
from exporter.torch.networks import Architecture, Fit, open_architecture, overridden
from exporter.torch.published import published_backbone, tuned_on
from tuning.network.backbone import Backbone, BackboneSpec, load_backbone
from tuning.network.checkpoint import TaskCheckpoint, check_backbone, load_task, read_kind, read_spec
from tuning.network.libraries import split_name
from tuning.network.weights import hash_weights

_Read = TypeVar("_Read")


class TorchSources:
    """Opens torch models one by one: the backbone first, then tasks. What can be refused without tracing is refused on opening.

    tasks: all that will be opened: the backbone takes the images that those of them were tuned on which say so. tuned: those.
    remembered: what `options` leave open. record: the backbone that was opened, to be remembered. remarks: what was assumed, in sentences.
    """

    def __init__(self, options: InputOptions, tasks: Mapping[str, Reference], remembered: Remembered) -> None:
        self._specs = _read_specs(tasks)
        self.tuned = {name: Tuned(spec.weights_sha256, spec.preprocessing) for name, spec in self._specs.items()}
        self._remembered, self._given = remembered, options
        options, self._taken = remembered.fill(options, tuned=bool(self.tuned))
        self.remarks: dict[str, None] = {}
        self.record: BackboneRecord | None = None
        self._images = _agreed_preprocessing(self.tuned, options)
        self._options = options
        self._is_single = len(tasks) == 1
        self._architectures: dict[tuple[str, bool], Architecture] = {}
        self._exporters: dict[tuple[str, int, int], NetworkExporter] = {}
        self._backbone: Backbone | None = None
        self._backbone_architecture: Architecture | None = None

    @property
    def published_backbone(self) -> str:
        """Return by which name the backbone of all task checkpoints is published; "" where it is not."""
        return published_backbone(self._specs.values())

    def open_backbone(self, reference: Reference) -> LoadTaskModel:
        """Return how to load the backbone, and put later tasks on it. Raises ExportError or tuning's errors."""
        if reference.is_callable:
            self._backbone_architecture = self._architecture(reference)
            self.record = _recorded(reference, self._backbone_architecture.network)
            return self._whole(reference, self._backbone_architecture, ())
        backbone = self._load_backbone(reference)
        self._backbone = backbone
        self.record = _recorded(reference, backbone.network, backbone.spec)
        self._backbone_architecture = Architecture.of_backbone(backbone)
        refuse_non_finite(reference.text, backbone.network.state_dict(), buffer_names(backbone.network))
        return self._on_backbone(backbone).export_backbone

    def open_task(self, name: str, reference: Reference) -> LoadTaskModel:
        """Return how to load the task `name`. Raises ExportError or tuning's errors when it does not fit its network."""
        if reference.network:
            architecture = self._architecture(reference)
        elif reference.file is not None and name in self.tuned:
            return self._open_tuned(name, reference.file)
        else:
            architecture = self._for_weights(name, reference)
        if reference.file is None:
            return self._whole(reference, architecture, ())
        fit, labels = architecture.check(reference.file), read_labels(name, reference.file)
        if labels and fit.outputs and len(labels) != fit.outputs:
            raise LabelsDoNotFit(name, len(labels), fit.outputs)
        self._remark(fit.remark)
        return self._whole(reference, architecture, labels, fit)

    def _load_backbone(self, reference: Reference) -> Backbone:
        if not reference.network and (reference.file is None or read_kind(reference.file) != "backbone"):
            raise BadModel(
                Path(reference.text), "is no backbone file; give weights from elsewhere with their network, as NETWORK@FILE."
            )
        self._remark(self._taken)
        backbone = load_backbone(reference.text, image_size=self._options.image_size, preprocessing=self._images)
        self._remark(backbone.remark)
        how = overridden(backbone.spec.preprocessing, self._options)
        return replace(backbone, spec=replace(backbone.spec, preprocessing=how))

    def _open_tuned(self, name: str, file: Path) -> LoadTaskModel:
        backbone = self._backbone
        if backbone is None:
            if self._backbone_architecture is None:
                raise NeedsBackbone(name, file, tuned_on(self._specs[name]))
            raise NeedsNamedBackbone(name)
        buffers = buffer_names(backbone.network)
        checkpoint = _load_tuned(file, buffers)
        check_backbone(backbone.spec, checkpoint.backbone)
        exporter, kept = self._on_backbone(backbone), self._kept(checkpoint)
        return lambda: exporter.export_task(kept.pop() if kept else _load_tuned(file, buffers))

    def _for_weights(self, name: str, reference: Reference) -> Architecture:
        file = Path(reference.text)
        if read_kind(file) == "backbone":
            raise BackboneGiven(file, name)
        if self._backbone_architecture is None:
            raise NeedsBackbone(name, file)
        if self._images is not None:
            self._remark(
                f"{file.name} does not say what images it takes; {self._images.height}x{self._images.width} pixels are taken, on which the "
                f"tasks were tuned that say it ({', '.join(self.tuned)})."
            )
        return self._backbone_architecture

    def _architecture(self, reference: Reference) -> Architecture:
        own = reference.file is None or is_adapter(reference.file)  # the network's own weights count
        pretrained = own and not reference.is_callable
        key = (reference.network, pretrained)
        if key not in self._architectures:
            self._architectures[key] = open_architecture(reference, self._options_of(reference), pretrained=pretrained)
        return self._architectures[key]

    def _options_of(self, reference: Reference) -> InputOptions:
        """Return what is said of images: another network than the remembered backbone says itself what it takes, unless it is code."""
        record = self._remembered.origin.backbone
        named = "" if reference.is_callable else "/".join(split_name(reference.network)).partition(".")[0]
        theirs = record.network.partition(" ")[0] if record is not None else ""
        is_another = bool(named and theirs) and named != theirs
        options, taken = self._remembered.fill(self._given, tuned=True) if is_another else (self._options, self._taken)
        self._remark(taken)
        return options

    def _remark(self, sentence: str) -> None:
        if sentence:
            self.remarks[sentence] = None  # once, however many tasks it is about

    def _whole(
        self, reference: Reference, architecture: Architecture, labels: tuple[str, ...], fit: Fit | None = None
    ) -> LoadTaskModel:
        exporter, kept = self._exporter(architecture), self._kept(fit) if fit else []
        provenance = {"network": reference.network or architecture.name.partition(" ")[0]}
        if fit is not None and fit.source:
            provenance["file"] = fit.source

        def load() -> TaskModel:
            network = architecture.network
            if reference.file is not None:
                network = architecture.with_weights(kept.pop() if kept else reference.file)
            model = exporter.export(network, architecture.preprocessing, reference.text)
            return TaskModel(model, labels, architecture.preprocessing, provenance, remark=exporter.remark)

        return load

    def _kept(self, read: _Read) -> list[_Read]:
        """Return what was read on opening, to be taken from the list once, if it is of the only task, as in a deploy.

        Of several, each is read again when its turn comes: all are checked before the first is traced, and memory holds one.
        """
        return [read] if self._is_single else []

    def _on_backbone(self, backbone: Backbone) -> BackboneExporter:
        return BackboneExporter(backbone, exporter=self._exporter(Architecture.of_backbone(backbone)))

    def _exporter(self, architecture: Architecture) -> NetworkExporter:
        key = (architecture.name, architecture.height, architecture.width)
        if key not in self._exporters:
            self._exporters[key] = NetworkExporter(
                architecture.height, architecture.width, self._options.preprocess or "in-graph"
            )
        return self._exporters[key]


def _recorded(reference: Reference, network: nn.Module, spec: BackboneSpec | None = None) -> BackboneRecord:
    size_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if spec is None:
        return weights_record(reference, hash_weights(network), size_bytes, "")
    return weights_record(reference, spec.weights_sha256, size_bytes, spec.architecture)


def _load_tuned(file: Path, buffers: Collection[str]) -> TaskCheckpoint:
    checkpoint = load_task(file)
    refuse_non_finite(str(file), checkpoint.tensors, buffers)
    return checkpoint


def _read_specs(tasks: Mapping[str, Reference]) -> dict[str, BackboneSpec]:
    """Return what the task checkpoints among `tasks` were tuned on, by their headers alone. Raises BadCheckpoint."""
    files = {name: task.file for name, task in tasks.items() if task.file is not None and not task.network}
    return {name: read_spec(file) for name, file in files.items() if read_kind(file) == "task"}


def _agreed_preprocessing(tuned: Mapping[str, Tuned], options: InputOptions) -> Preprocessing | None:
    """Return what becomes of the images of all `tuned` tasks, None when there are none.

    Raises DifferentImages when they differ, ContradictsTask when `options` say otherwise.
    """
    if not tuned:
        return None
    images = {name: task.preprocessing for name, task in tuned.items()}
    first, agreed = next(iter(images.items()))
    differing = frozenset[str]().union(*(agreed.differing(other) for other in images.values()))
    if differing:
        raise DifferentImages({name: how.words(differing) for name, how in images.items()})
    for option, asked in _asked(options, agreed).items():
        if fields := asked.differing(agreed):
            raise ContradictsTask(option, asked.words(fields), first, agreed.words(fields))
    return agreed


def _asked(options: InputOptions, agreed: Preprocessing) -> dict[str, Preprocessing]:
    """Return what `agreed` would be with each option."""
    return {
        "image_size": overridden(agreed, InputOptions(image_size=options.image_size)),
        "mean": overridden(agreed, InputOptions(mean=options.mean)),
        "std": overridden(agreed, InputOptions(std=options.std)),
    }
