"""Refuses weights that leave no answer: NaN anywhere, infinities but for those of a mask."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from exporter.errors import NonFiniteWeights
from exporter.sources.tensors import is_finite


def buffer_names(network: nn.Module) -> frozenset[str]:
    """Return the names of what `network` keeps beside its weights, such as masks; statistics of a normalisation are as weights here."""
    modules = [
        (path, module) for path, module in network.named_modules() if not isinstance(module, nn.modules.batchnorm._NormBase)
    ]
    found = (
        ".".join((*filter(None, (path,)), name)) for path, module in modules for name, _ in module.named_buffers(recurse=False)
    )
    return frozenset(found)


def refuse_non_finite(where: str, tensors: Mapping[str, Tensor], buffers: Collection[str] = ()) -> None:
    """Raise NonFiniteWeights for the first of `tensors` that holds NaN, or infinity beside other values than zero.

    buffers: which of them may have infinities all the same: masks, if the network's answers are finite.
    """
    for name, tensor in tensors.items():
        if not _is_finite(tensor) and (name not in buffers or bool(tensor.isnan().any())):
            raise NonFiniteWeights(where, name)


def masks_of(where: str, network: nn.Module, answers: Iterable[Tensor]) -> tuple[str, ...]:
    """Return the buffers of `network` that have infinities beside other values. Raises NonFiniteWeights unless its `answers` are finite."""
    found = tuple(name for name, buffer in network.named_buffers() if not _is_finite(buffer))
    if found and not all(bool(torch.isfinite(answer).all()) for answer in answers):
        raise NonFiniteWeights(where, found[0])
    return found


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()) or is_finite(tensor.detach().float().numpy())
