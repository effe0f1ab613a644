"""Layers made as narrow as the tensors that are going to be put into them: how the architecture of a pruned task is rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tuning.network.blocks import is_under

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
RESIZABLE = (nn.Conv2d, nn.Linear, _BATCH_NORM, nn.LayerNorm)  # the layers whose sizes can be read off their tensors


def resize_layers(network: nn.Module, tensors: Mapping[str, Tensor], paths: Iterable[str]) -> tuple[str, ...]:
    """Give the layers under `paths` the channels or features that `tensors` (by state-dict name) have, in place; return those changed.

    What the tensors will be put into is left uninitialised. Layers only become narrower: one whose tensors are missing, wider, or of
    another kernel or number of dimensions stays as it is, so that the comparison of shapes that follows names it.
    """
    wanted = tuple(paths)
    return tuple(
        path
        for path, layer in network.named_modules()
        if is_under(path, wanted) and isinstance(layer, RESIZABLE) and _resize(layer, path, tensors)
    )


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether `layer` is a convolution in which every channel is a group of its own."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def _resize(layer: nn.Module, path: str, tensors: Mapping[str, Tensor]) -> bool:
    old = _main_tensor(layer)
    given = tensors.get(f"{path}.{'weight' if layer._parameters.get('weight') is not None else 'running_mean'}")
    if old is None or given is None or not _is_narrower(given.shape, old.shape):
        return False
    _set_sizes(layer, given.shape)
    for name, parameter in layer.named_parameters(recurse=False):
        shape = given.shape if name == "weight" else given.shape[:1]
        setattr(layer, name, nn.Parameter(parameter.new_empty(shape), parameter.requires_grad))
    for name, buffer in layer.named_buffers(recurse=False):
        if buffer.ndim:  # BatchNorm also counts batches
            setattr(layer, name, buffer.new_empty(given.shape[:1]))
    return True


def _main_tensor(layer: nn.Module) -> Tensor | None:
    weight = layer._parameters.get("weight")
    return weight if weight is not None else layer._buffers.get("running_mean")


def _is_narrower(new: torch.Size, old: torch.Size) -> bool:
    """Return whether `new` differs from `old` by fewer channels, in the first two dimensions, and in nothing else."""
    return len(new) == len(old) and new != old and new[2:] == old[2:] and all(0 < n <= o for n, o in zip(new, old, strict=True))


def _set_sizes(layer: nn.Module, weight: torch.Size) -> None:
    if isinstance(layer, nn.Conv2d):
        if is_depthwise(layer):
            layer.groups = weight[0]
        layer.out_channels, layer.in_channels = weight[0], weight[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight[0], weight[1]
    elif isinstance(layer, _BATCH_NORM):
        layer.num_features = weight[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight)
