"""What is kept of a trace: its graph, without the weights that each network has of its own for it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir
from torch import Tensor

from exporter.errors import ExportError


@dataclass(frozen=True)
class KnownTrace:
    """The trace of a network. own: the names of the weights that whoever it is for must bring."""

    model: ir.Model
    own: frozenset[str]

    @staticmethod
    def of(traced: ir.Model, weights: Container[str]) -> KnownTrace:
        """Return what to keep of `traced`, whose copies of `weights` go: all of a network's, as long as it is kept."""
        model = traced.clone()
        own = [name for name in model.graph.initializers if name in weights]
        for name in own:
            value = model.graph.initializers[name]
            if value.const_value is not None:
                shape = ir.Shape(value.const_value.shape.numpy())
                value.const_value = ir.LazyTensor(partial(_gone, name), dtype=value.const_value.dtype, shape=shape, name=name)
        return KnownTrace(model, frozenset(own))

    def takes(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether a network with these `weights` brings all that it needs."""
        return self.own <= weights.keys()


def _gone(name: str) -> ir.TensorProtocol:
    raise ExportError(f"The network lacks the weight {name}, which the one that was traced has.")
