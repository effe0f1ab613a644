"""LoRA (arXiv 2106.09685): a frozen layer plus a product of two thin ones, merged into one layer of the old shape in the end."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.network.blocks import find_blocks, is_under
from tuning.network.paths import attention_paths


class LowRank(nn.Module):
    """base(x) + up(down(x)). base: a frozen Linear or ungrouped Conv2d. up starts at zero, so that training starts from the base.

    The update is not scaled further (alpha equals the rank, in the paper's terms); the learning rate takes that part.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)
            inputs = base.in_features
        else:
            size, stride, padding, dilation = base.kernel_size, base.stride, base.padding, base.dilation
            self.down = nn.Conv2d(base.in_channels, rank, size, stride, padding, dilation, 1, False, base.padding_mode)  # type: ignore[arg-type]
            self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
            inputs = base.in_channels * size[0] * size[1]
        with torch.no_grad():
            self.down.weight.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the merged layer gives."""
        return self.base(x) + self.up(self.down(x))  # type: ignore[no-any-return]

    @property
    def weight(self) -> Tensor:
        """The merged weight, for networks that take a layer's weight instead of calling the layer."""
        product = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
        return self.base.weight + product.view_as(self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return self.base.bias

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return one layer that computes the same. The base stays as it was: a replayed half of the network may still call it."""
        layer = copy.deepcopy(self.base)
        layer.weight.copy_(self.weight)
        return layer


def adaptable_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the layers that LoRA adapts: the Linears of the attention modules; in a network without attention, the blocks' convolutions.

    torch's own MultiheadAttention keeps its weights where no layer can be put around them. Raises UnsupportedNetwork if nothing is left.
    """
    attention = attention_paths(network)
    closed = [path for path, module in network.named_modules() if isinstance(module, nn.MultiheadAttention)]
    where = attention or find_blocks(network)
    layers = tuple(
        path
        for path, module in network.named_modules()
        if is_under(path, where) and not is_under(path, closed) and _fits(module, bool(attention))
    )
    if not layers:
        raise UnsupportedNetwork(
            "LoRA finds no attention layers (other than torch's MultiheadAttention) and no convolutions to adapt."
        )
    return layers


def wrap_layers(network: nn.Module, paths: Iterable[str], rank: int, seed: int) -> None:
    """Put a LowRank around each layer, in place."""
    if rank < 1:
        raise BadOptions(f"The rank must be at least 1, not {rank}.")
    generator = torch.Generator().manual_seed(seed)
    for path in paths:
        network.set_submodule(path, LowRank(network.get_submodule(path), rank, generator))  # type: ignore[arg-type]


def merge_layers(network: nn.Module) -> None:
    """Put the merged layer in the place of each LowRank."""
    for path, module in list(network.named_modules()):
        if isinstance(module, LowRank):
            network.set_submodule(path, module.merged())


def _fits(module: nn.Module, linear: bool) -> bool:
    """Return whether a product of two thin layers can be merged into `module`: it must compute as its class does, no variant of it."""
    if linear:
        return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and module.groups == 1
