"""Opens task models: ONNX files of any producer, and torch networks. torch is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from contract.kinds.kind import Kind
from contract.repository.origin import BackboneRecord
from exporter.errors import GivenToNobody, PreprocessingDoesNotFit
from exporter.sources.assumed import own_labels
from exporter.sources.images.found import find_preprocessing, stated
from exporter.sources.images.said import Said, Spoken, read_said
from exporter.sources.onnx_file import load_onnx
from exporter.sources.references import InputOptions, Preprocess, Reference, parse_reference
from exporter.sources.remembered import Remembered, file_record, needs_backbone, origin_of
from exporter.sources.sandbox import try_in_sandbox
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel, Tuned, read_labels
from exporter.sources.tokenizer import Tokenizers, read_tokenizers

if TYPE_CHECKING:
    from exporter.torch.sources import TorchSources
    from exporter.torch.text_sources import TextSources


def open_sources(
    backbone: str | Path | None,
    tasks: Mapping[str, str | Path],
    options: InputOptions | Preprocess | None = None,
    tokenizers: Tokenizers = MappingProxyType({}),
    input_names: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    kinds: Mapping[str, Kind] = MappingProxyType({}),
    remembered: Remembered | None = None,
    *,
    preprocessing: Mapping[str, Spoken] = MappingProxyType({}),
) -> Sources:
    """Return how to load `tasks` and `backbone`, each named as `exporter.sources.references.parse_reference` reads it.

    A file of weights alone belongs to the backbone: a task checkpoint of ours, or a whole state dict of the backbone's architecture,
    whose head may have a size of its own. The published backbone that checkpoints were tuned on need not be given.
    Every file is checked now, before anything is traced: ONNX files are tried out in a process of their own, state dicts must fit
    their network. tokenizers: of tasks that take texts. input_names: as `Sources.inputs`.
    kinds: how people read what tasks answer, by name; of others, as their sources say. remembered: of the repository to which they come:
    its backbone where a task needs one and none is given, and what `options` leave open. preprocessing: how an image becomes the input of
    tasks of ONNX files, by name, as `exporter.sources.images.said.read_said` reads it; of others, as their files say, if they do.
    Raises ExportError or, for networks and checkpoints, TuningError.
    """
    options = options if isinstance(options, InputOptions) else InputOptions(options)
    named = {name: parse_reference(text) for name, text in tasks.items()}
    remembered = remembered or Remembered()
    base = parse_reference(backbone) if backbone is not None else remembered.backbone_for(named.values())
    references = [reference for reference in (base, *named.values()) if reference is not None]
    for what, given in (("A kind", kinds), ("A preprocessing", preprocessing)):
        if unknown := [name for name in given if name not in tasks]:
            raise GivenToNobody(what, unknown[0], [*tasks])
    said = {name: _read_said(name, named[name], spoken) for name, spoken in preprocessing.items()}
    texts = read_tokenizers(tokenizers, tasks)
    remarks = try_in_sandbox([file for reference in references if (file := reference.onnx_file) is not None])
    opener = _Opener(options, named, remembered, said)
    if base is None and (published := opener.published_backbone()):
        base, backbone = parse_reference(published), published
        remarks = (*remarks, f"The backbone is {published}, on which the task checkpoints were tuned.")
    load_base = opener.open_backbone(base) if base is not None else None
    record = opener.record_of(base) if base is not None else None
    if base is not None and record is not None and backbone is None:
        record = remembered.checked(record)
        remarks = (*remarks, f"The backbone is {base.text}, as {remembered.path} remembers it.")
    loads = {name: opener.open_task(name, reference) for name, reference in named.items()}
    loads = {name: _with(load, tokenizer=texts[name]) if name in texts else load for name, load in loads.items()}
    loads = {name: _with(load, kind=kinds[name]) if name in kinds else load for name, load in loads.items()}
    return Sources(
        loads, load_base, opener.tuned, (*remarks, *opener.remarks), inputs=input_names, origin=origin_of(options, record)
    )


def _onnx_task(name: str, file: Path, labels: tuple[str, ...], said: Said | None) -> TaskModel:
    model = load_onnx(file)
    try:
        how, remark = find_preprocessing(model, file) if said is None else stated(model, said)
    except ValueError as error:
        raise PreprocessingDoesNotFit(name, str(error)) from error
    refuses = how is None and bool(remark)
    return TaskModel(model, labels or own_labels(model), how, {"file": file.name}, file, remark, refuses_images=refuses)


def _read_said(name: str, reference: Reference, spoken: Spoken) -> Said:
    if reference.onnx_file is None:
        raise PreprocessingDoesNotFit(name, "its model is no ONNX file; of a torch network, give the image size, mean and std")
    try:
        return read_said(spoken)
    except ValueError as error:
        raise PreprocessingDoesNotFit(name, str(error)) from error


def _with(load: LoadTaskModel, **fields: Any) -> LoadTaskModel:
    return lambda: replace(load(), **fields)


class _Opener:
    """Opens ONNX files itself and leaves the rest to TorchSources and TextSources, which come into being when it is needed."""

    def __init__(
        self, options: InputOptions, tasks: Mapping[str, Reference], remembered: Remembered, said: Mapping[str, Said]
    ) -> None:
        self._options, self._tasks, self._remembered, self._said = options, tasks, remembered, said
        self._opened: TorchSources | None = None
        self._opened_texts: TextSources | None = None

    @property
    def tuned(self) -> Mapping[str, Tuned]:
        """What the task checkpoints among the tasks were tuned on."""
        return self._opened.tuned if self._opened else {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was assumed so far."""
        opened = (self._opened, self._opened_texts)
        return tuple(remark for sources in opened if sources is not None for remark in sources.remarks)

    def open_backbone(self, reference: Reference) -> LoadTaskModel:
        file = reference.onnx_file
        if reference.folder is not None:
            return self._texts.open_backbone(reference.folder)
        if file is None:
            return self._torch.open_backbone(reference)
        return lambda: TaskModel(load_onnx(file), file=file)

    def published_backbone(self) -> str:
        """Return by which name the backbone is published that task checkpoints were tuned on; "" where there is none."""
        return self._torch.published_backbone if any(needs_backbone(task) for task in self._tasks.values()) else ""

    def record_of(self, backbone: Reference) -> BackboneRecord | None:
        """Return what is to be remembered of `backbone`, which is open. Raises BadModel."""
        return self._opened.record if self._opened is not None and self._opened.record else file_record(backbone)

    def open_task(self, name: str, reference: Reference) -> LoadTaskModel:
        file = reference.onnx_file
        if reference.folder is not None:
            return self._texts.open_task(reference.folder)
        if file is None:
            return self._torch.open_task(name, reference)
        labels = read_labels(name, file)
        return lambda: _onnx_task(name, file, labels, self._said.get(name))

    @property
    def _texts(self) -> TextSources:
        if self._opened_texts is None:
            from exporter.torch.text_sources import TextSources

            self._opened_texts = TextSources()
        return self._opened_texts

    @property
    def _torch(self) -> TorchSources:
        if self._opened is None:
            from exporter.torch.sources import TorchSources

            self._opened = TorchSources(self._options, self._tasks, self._remembered)
        return self._opened
