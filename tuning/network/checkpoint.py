"""What tuning a task leaves behind: the tensors that changed, and everything needed to put them back on their backbone."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contract.kinds.classes import Classes
from contract.kinds.kind import Kind
from contract.kinds.registry import kind_from_json, kind_to_json
from tuning.errors import BackboneMismatch, BadCheckpoint, UnknownBlock, WrongTensors
from tuning.network.backbone import BACKBONE_FORMAT, Backbone, BackboneSpec
from tuning.network.blocks import is_under, replace_head
from tuning.network.files import read_metadata, read_tensors, write_tensors
from tuning.network.resize import resize_layers
from tuning.network.siamese import make_siamese
from tuning.network.weights import check_tensors

_TASK_FORMAT = "espalier-task/1"
_FOREIGN = "not a task checkpoint (it was not written by espalier tune fit)"

Provenance = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, eq=False)
class TaskCheckpoint:
    """One tuned task.

    tensors: every parameter and buffer under the tuned blocks and the head, by state-dict name; all of them when `all_weights`.
    backbone: what it was tuned on. subset: the tuned blocks (or other modules, or parameters) in forward order, () for a linear probe.
    labels: class names, one per output. scores: name to value, e.g. "test_accuracy" in [0, 1].
    provenance: method, options and library versions, for people.
    siamese: the network is a `tuning.network.siamese.Siamese`, and the names in `tensors` are its.
    pruned: layers inside the tuned blocks have fewer channels than the backbone's, as many as their tensors say.
    kind: how people read what the task answers; labels are its names.
    """

    tensors: Mapping[str, Tensor]
    backbone: BackboneSpec
    subset: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Mapping[str, float]
    seed: int
    provenance: Provenance
    all_weights: bool = False
    siamese: bool = False
    pruned: bool = False
    kind: Kind = field(default_factory=Classes)


def save_task(checkpoint: TaskCheckpoint, path: Path) -> None:
    """Write the checkpoint as one safetensors file, atomically. Raises CannotWrite."""
    write_tensors(path, checkpoint.tensors, {"format": _TASK_FORMAT, "task": _to_json(checkpoint)})


def load_task(path: Path) -> TaskCheckpoint:
    """Read what `save_task` wrote. Raises BadCheckpoint for a missing, truncated or foreign file."""
    metadata = read_metadata(path)
    if metadata.get("format") != _TASK_FORMAT:
        raise BadCheckpoint(path, _FOREIGN)
    with _damage_named(path):
        return _from_json(metadata.get("task", ""), read_tensors(path))


def read_spec(path: Path) -> BackboneSpec:
    """Return what the task in `path` was tuned on, by the file's header alone. Raises BadCheckpoint as `load_task` does."""
    metadata = read_metadata(path)
    if metadata.get("format") != _TASK_FORMAT:
        raise BadCheckpoint(path, _FOREIGN)
    with _damage_named(path):
        return _from_json(metadata.get("task", ""), {}).backbone


def read_kind(path: Path) -> Literal["backbone", "task"] | None:
    """Return which of our files `path` is, by its header alone; None for any other or no file."""
    try:
        form = read_metadata(path).get("format")
    except BadCheckpoint:
        return None
    if form == BACKBONE_FORMAT:
        return "backbone"
    return "task" if form == _TASK_FORMAT else None


def build_network(backbone: Backbone, checkpoint: TaskCheckpoint) -> nn.Module:
    """Return the whole network of the task in eval mode: a fresh copy of the backbone's, with the checkpoint's tensors in place.

    Raises BackboneMismatch for another backbone than the one tuned on, WrongTensors when tensors are missing, too many, or do not fit.
    """
    check_backbone(backbone.spec, checkpoint.backbone)
    known = backbone.paths
    for path in checkpoint.subset:
        if path not in known:
            raise UnknownBlock(path, backbone.blocks)
    network = copy.deepcopy(backbone.network)
    image = torch.zeros(1, 3, backbone.spec.preprocessing.height, backbone.spec.preprocessing.width)
    if checkpoint.siamese:
        network = make_siamese(network, backbone.network, len(checkpoint.labels), checkpoint.seed, image)
        paths: tuple[str, ...] = (*(f"tuned.{path}" for path in checkpoint.subset), "head")
    else:
        replace_head(network, len(checkpoint.labels), checkpoint.seed)
        paths = checkpoint.subset + backbone.head
    narrowed = resize_layers(network, checkpoint.tensors, inner_parts(backbone, checkpoint)) if checkpoint.pruned else ()
    state = network.state_dict()
    check_tensors({name: t for name, t in state.items() if checkpoint.all_weights or is_under(name, paths)}, checkpoint.tensors)
    network.load_state_dict({**state, **checkpoint.tensors})
    network.eval().requires_grad_(False)
    if narrowed:
        _check_runs(network, image, narrowed)
    return network


def inner_parts(backbone: Backbone, checkpoint: TaskCheckpoint) -> tuple[str, ...]:
    """Return the paths, in the task's network, of the blocks or parts of blocks that it owns: what may have fewer channels inside."""
    blocks, subset = backbone.blocks, checkpoint.subset
    parts = [block for block in blocks if checkpoint.all_weights or is_under(block, subset)]
    parts += [path for path in subset if path not in parts and is_under(path, blocks)]
    return tuple(f"tuned.{part}" for part in parts) if checkpoint.siamese else tuple(parts)


def tuned_names(backbone: Backbone, subset: tuple[str, ...], all_weights: bool) -> tuple[str, ...]:
    """Return the state-dict names of what a task owns: under its blocks and the head, or all."""
    paths = subset + backbone.head
    return tuple(name for name in backbone.network.state_dict() if all_weights or is_under(name, paths))


def check_backbone(given: BackboneSpec, wanted: BackboneSpec) -> None:
    """Raise BackboneMismatch unless `given` is the network, with the weights and for the images, that a task wants."""
    if given.architecture != wanted.architecture:
        raise BackboneMismatch("the architecture", wanted.architecture, given.architecture)
    if given.weights_sha256 != wanted.weights_sha256:
        raise BackboneMismatch(
            "weights", f"{wanted.weights_sha256[:12]} ({wanted.weights})", f"{given.weights_sha256[:12]} ({given.weights})"
        )
    if fields := wanted.preprocessing.differing(given.preprocessing):
        raise BackboneMismatch("images of", wanted.preprocessing.words(fields), given.preprocessing.words(fields))


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise BadCheckpoint where the description in the header of `path` cannot be read."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadCheckpoint(path, f"the description of the task in its header is damaged ({error})") from error


@torch.no_grad()
def _check_runs(network: nn.Module, image: Tensor, narrowed: tuple[str, ...]) -> None:
    """Raise WrongTensors when layers that became narrower do not fit each other."""
    try:
        network(image)
    except RuntimeError as error:
        raise WrongTensors((), (), [f"{path}.weight" for path in narrowed]) from error


def _to_json(checkpoint: TaskCheckpoint) -> str:
    fields = {
        "backbone": json.loads(checkpoint.backbone.to_json()),
        "subset": checkpoint.subset,
        "labels": checkpoint.labels,
        "scores": dict(checkpoint.scores),
        "seed": checkpoint.seed,
        "provenance": dict(checkpoint.provenance),
        "all_weights": checkpoint.all_weights,
        "siamese": checkpoint.siamese,
        "pruned": checkpoint.pruned,
        **({} if checkpoint.kind == Classes() else {"kind": kind_to_json(checkpoint.kind)}),
    }
    return json.dumps(fields, sort_keys=True)


def _from_json(text: str, tensors: Mapping[str, Tensor]) -> TaskCheckpoint:
    fields: dict[str, Any] = json.loads(text)
    return TaskCheckpoint(
        tensors=tensors,
        backbone=BackboneSpec.from_json(json.dumps(fields["backbone"])),
        subset=tuple(str(block) for block in fields["subset"]),
        labels=tuple(str(label) for label in fields["labels"]),
        scores={str(name): float(score) for name, score in fields["scores"].items()},
        seed=int(fields["seed"]),
        provenance=dict(fields["provenance"]),
        all_weights=bool(fields["all_weights"]),
        siamese=bool(fields.get("siamese", False)),
        pruned=bool(fields.get("pruned", False)),
        kind=kind_from_json(fields["kind"]) if "kind" in fields else Classes(),
    )
