"""What the tests' kept traces take for equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from tests.exporter.graphs import Net
from tests.traces import keeping

EXAMPLE = torch.zeros(2, 3)


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


def _other_attribute() -> nn.Module:
    network = _network()
    network.get_submodule("1").p = 0.25  # type: ignore[assignment]
    return network


def _tied() -> nn.Module:
    layer = nn.Linear(3, 3, bias=False)
    return nn.Sequential(layer, nn.Linear(3, 3, bias=False)).requires_grad_(False)


@pytest.fixture
def traced(tmp_path: Path) -> Callable[[nn.Module, torch.Tensor], int]:
    """Ask for a trace as a new process would, and return how many have been made so far."""
    made: list[nn.Module] = []

    def trace(module: nn.Module, example: torch.Tensor) -> ir.Model:
        made.append(module)
        return Net(blocks=(1,)).model()

    def ask(module: nn.Module, example: torch.Tensor) -> int:
        assert keeping(trace, tmp_path)(module, example).graph.num_nodes() == Net(blocks=(1,)).model().graph.num_nodes()
        return len(made)

    return ask


def test_an_equal_network_is_not_traced_again(traced: Callable[[nn.Module, torch.Tensor], int]) -> None:
    assert [traced(network, EXAMPLE) for network in (_network(), _network(), copy.deepcopy(_network()))] == [1, 1, 1]


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (_network(1), EXAMPLE),
        (_network().train(), EXAMPLE),
        (_other_attribute(), EXAMPLE),
        (_network(), EXAMPLE.double()),
        (_network(), torch.zeros(3, 3)),
    ],
    ids=["weights", "mode", "attribute", "dtype", "shape"],
)
def test_one_that_differs_is(traced: Callable[[nn.Module, torch.Tensor], int], network: nn.Module, example: torch.Tensor) -> None:
    assert (traced(_network(), EXAMPLE), traced(network, example)) == (1, 2)


def test_tied_weights_are_not_equal_ones(traced: Callable[[nn.Module, torch.Tensor], int]) -> None:
    apart, tied = _tied(), _tied()
    apart[0].weight.copy_(torch.eye(3))  # type: ignore[index, operator]
    apart[1].weight.copy_(torch.eye(3))  # type: ignore[index, operator]
    tied[0].weight.copy_(torch.eye(3))  # type: ignore[index, operator]
    tied[1].weight = tied[0].weight  # type: ignore[index]
    assert (traced(apart, EXAMPLE), traced(tied, EXAMPLE)) == (1, 2)
