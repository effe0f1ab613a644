"""torch networks by reference: from timm, torchvision or Python code, with weights of any origin, checked before anything is traced."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from contract.references import is_adapter
from exporter.errors import BadCode, BadModel, UnknownInput
from exporter.sources.onnx_file import first_line
from exporter.sources.references import InputOptions, Reference
from exporter.torch.finite import buffer_names, refuse_non_finite
from tuning.errors import TuningError
from tuning.network.adapters import read_adapter
from tuning.network.backbone import Backbone
from tuning.network.blocks import find_head, is_under, replace_head
from tuning.network.libraries import create_network, find_preprocessing, split_name, with_input_size
from tuning.network.packaged import find_packaged
from tuning.network.state_dicts import read_state_dict
from tuning.network.weights import check_tensors


@dataclass(frozen=True)
class Fit:
    """A whole state dict of an architecture, with so many outputs. source, remark: as of tuning.network.state_dicts.StateDict."""

    tensors: Mapping[str, Tensor] = field(repr=False)
    outputs: int
    source: str
    remark: str


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network without the weights of any task: what whole state dicts are put into.

    name: equal names, equal graphs. network: never changed. height, width: pixels of its input. preprocessing: None when nothing says
    how images are normalised.
    """

    name: str
    network: nn.Module
    height: int
    width: int
    preprocessing: Preprocessing | None

    @classmethod
    def of_backbone(cls, backbone: Backbone) -> Architecture:
        """Return that of `backbone`."""
        how = backbone.spec.preprocessing
        return cls(backbone.spec.architecture, backbone.network, how.height, how.width, how)

    def check(self, file: Path) -> Fit:
        """Return the whole state dict in `file`, or that of the network with the adapter in the folder `file` merged in.

        Raises BadModel or NonFiniteWeights if it does not fit.
        """
        state = read_adapter(file, self.network) if is_adapter(file) else read_state_dict(file, self.network)
        refuse_non_finite(str(file), state.tensors, buffer_names(self.network))
        try:
            check_tensors(self._needed(state.tensors), state.tensors)
        except TuningError as error:
            network = self.name.partition(" ")[0]
            raise BadModel(file, f"is no whole state dict of {network}: {state.explained(error)}") from error
        return Fit(state.tensors, self._outputs(state.tensors), state.source, state.remark)

    def with_weights(self, weights: Fit | Path) -> nn.Module:
        """Return a copy of the network with `weights`, or those in that file, its head as large as the one there."""
        fit = self.check(weights) if isinstance(weights, Path) else weights
        network = copy.deepcopy(self.network)
        if fit.outputs != self._outputs(network.state_dict()):
            replace_head(network, fit.outputs, seed=0)
        network.load_state_dict(fit.tensors)
        return network.eval().requires_grad_(False)

    def _needed(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the network's tensors, those of the head with as many rows as in `given`."""
        head, outputs = find_head(self.network), self._outputs(given)
        return {
            name: torch.empty((outputs, *tensor.shape[1:]), device="meta") if outputs and is_under(name, head) else tensor
            for name, tensor in self.network.state_dict().items()
        }

    def _outputs(self, tensors: Mapping[str, Tensor]) -> int:
        """Return the rows of the head's weight, 0 where there is none."""
        weights = [tensors.get(f"{path}.weight") for path in find_head(self.network)]
        return next((tensor.shape[0] for tensor in weights if tensor is not None and tensor.ndim), 0)


def open_architecture(reference: Reference, options: InputOptions, *, pretrained: bool = False) -> Architecture:
    """Return the architecture of a reference to a library's network or to Python code, which is run.

    pretrained: with the library's weights. Raises tuning's UnknownBackbone, WeightsUnavailable or BackboneOptions; BadCode; UnknownInput.
    """
    if reference.is_callable:
        return _from_code(reference.network, options)
    library, name = split_name(reference.network)
    built_with = with_input_size(library, name, {}, options.image_size)
    packaged = find_packaged(reference.network) if pretrained else None
    network = create_network(library, name, built_with, None, weights=pretrained and packaged is None)
    if packaged is not None:
        packaged.load_into(network)
    how = overridden(find_preprocessing(library, name, network, options.image_size), options)
    full_name = (
        f"{library}/{name.partition('.')[0]} {json.dumps(built_with, sort_keys=True)}"  # as BackboneSpec.architecture has it
    )
    return Architecture(full_name, network.requires_grad_(False), how.height, how.width, how)


def overridden(preprocessing: Preprocessing, options: InputOptions) -> Preprocessing:
    """Return `preprocessing` with what `options` say otherwise."""
    return replace(
        preprocessing,
        height=options.image_size or preprocessing.height,
        width=options.image_size or preprocessing.width,
        mean=options.mean or preprocessing.mean,
        std=options.std or preprocessing.std,
    )


def _from_code(name: str, options: InputOptions) -> Architecture:
    network = _call(name).float().cpu().eval().requires_grad_(False)
    how = _preprocessing_of(name, network, options)
    if how is not None:
        return Architecture(name, network, how.height, how.width, how)
    size = options.image_size
    if size is None or options.is_in_graph:
        missing = [("image_size", size), ("mean", options.mean), ("std", options.std)]
        wanted = missing if options.is_in_graph else missing[:1]
        raise UnknownInput(name, [option for option, value in wanted if value is None])
    return Architecture(name, network, size, size, None)


def _preprocessing_of(name: str, network: nn.Module, options: InputOptions) -> Preprocessing | None:
    if _describes_images(network):
        return overridden(find_preprocessing("timm", name, network, options.image_size), options)
    if options.image_size is None or options.mean is None or options.std is None:
        return None
    return Preprocessing(options.image_size, options.image_size, mean=options.mean, std=options.std)


def _describes_images(network: nn.Module) -> bool:
    """Return whether `network` carries timm's description of its input, which is then made its `pretrained_cfg`, where timm looks."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(network, name, None)
        known = config if isinstance(config, Mapping) else vars(config) if config is not None else {}
        if all(known.get(key) for key in ("input_size", "mean", "std")):
            vars(network)["pretrained_cfg"] = config
            return True
    return False


def _call(name: str) -> nn.Module:
    """Return the network that "package.module:callable" makes. Raises BadCode with what its code raised."""
    module, _, path = name.partition(":")
    try:
        with _working_directory_first():
            made: object = importlib.import_module(module)
            for part in path.split("."):
                made = getattr(made, part)
            if callable(made) and not isinstance(made, nn.Module):
                made = made()
    except Exception as error:
        raise BadCode(name, f"cannot be loaded ({type(error).__name__}: {first_line(error)})") from error
    if not isinstance(made, nn.Module):
        raise BadCode(name, f"gives a {type(made).__name__} and no torch network")
    return made


@contextmanager
def _working_directory_first() -> Iterator[None]:
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)
