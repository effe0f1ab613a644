"""The blocks of several streams as one: their convolutions become grouped ones, their channels stand side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


class _Repeat(nn.Module):
    """(n, channels, height, width) -> the channels `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, rows: Tensor) -> Tensor:
        """Repeat the channels."""
        return rows.repeat(1, self.times, 1, 1)


def group_blocks(blocks: Sequence[Sequence[nn.Module]]) -> nn.Module:
    """Return the residual blocks of all streams (`blocks`: by stream, each the same architecture) as one module.

    It takes what all streams have in common, (n, channels, height, width), and gives (n, streams * channels, height, width). The first
    block's first convolutions see one input, so that they are one wider convolution and no grouped one.
    """
    first, *rest = zip(*blocks, strict=True)
    return nn.Sequential(_join_first(first), *(_join(modules) for modules in rest)).eval()


def split_streams(rows: Tensor, count: int) -> Tensor:
    """Return (n, count * channels, height, width) as (count * n, channels, height, width), stream by stream."""
    streams = rows.reshape(len(rows), count, -1, *rows.shape[2:])
    return streams.transpose(0, 1).flatten(0, 1)


def _join(modules: Sequence[nn.Module], shared_input: bool = False) -> nn.Module:
    """Return modules of one architecture as one, their channels side by side. shared_input: all convolutions in it see one input."""
    kind = modules[0]
    if isinstance(kind, nn.Conv2d):
        return _join_convolutions(cast(Sequence[nn.Conv2d], modules), shared_input)
    if isinstance(kind, nn.BatchNorm2d):
        return _join_norms(cast(Sequence[nn.BatchNorm2d], modules))
    joined = copy.deepcopy(kind)
    for name, _ in kind.named_children():
        setattr(joined, name, _join([module.get_submodule(name) for module in modules], shared_input))
    return joined


def _join_first(blocks: Sequence[nn.Module]) -> nn.Module:
    joined = _join(blocks)
    joined.conv1 = _join([block.get_submodule("conv1") for block in blocks], shared_input=True)
    if getattr(blocks[0], "downsample", None) is None:
        joined.downsample = _Repeat(len(blocks))  # the shortcut, once for each stream
    else:
        joined.downsample = _join([block.get_submodule("downsample") for block in blocks], shared_input=True)
    return joined


def _join_convolutions(convolutions: Sequence[nn.Conv2d], shared_input: bool) -> nn.Conv2d:
    first, count = convolutions[0], len(convolutions)
    joined = nn.Conv2d(
        first.in_channels if shared_input else count * first.in_channels,
        count * first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        first.groups if shared_input else count * first.groups,
        bias=first.bias is not None,
    )
    return _with_tensors(joined, convolutions)


def _join_norms(norms: Sequence[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    joined = copy.deepcopy(norms[0])
    joined.num_features = len(norms) * norms[0].num_features
    return _with_tensors(joined, norms)


def _with_tensors(joined: _Module, modules: Sequence[nn.Module]) -> _Module:
    """Put the modules' tensors one after the other into `joined`."""
    with torch.no_grad():
        for store in ("_parameters", "_buffers"):
            for name, tensor in getattr(modules[0], store).items():
                if tensor is not None and tensor.dim():  # a counter of batches has none
                    tensors = torch.cat([getattr(module, name).detach() for module in modules])
                    setattr(joined, name, nn.Parameter(tensors, requires_grad=False) if store == "_parameters" else tensors)
    return joined
