"""torch networks -> ONNX. The one module of the exporter that imports torch.

Tracing a network takes seconds, and all tasks of one backbone have the same architecture. So a backbone is traced once, without any
optimisation, and each task's weights are put into a copy of that graph; folding (BatchNorm into convolutions, say) comes after. What
comes out is compared with torch's own result before it is used.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from exporter.errors import ExportError
from exporter.runtime import open_session
from exporter.task_model import TaskModel
from tuning.backbone import Backbone
from tuning.checkpoint import TaskCheckpoint, build_network
from tuning.normalise import Normalise

OPSET = 18
# Random inputs, so activations are of ordinary size; float32 sums in another order differ by about 1e-6 of the spread.
_TOLERANCE = 1e-3


class _Wrapped(nn.Module):
    """The network as it is exported: with or without the normalisation in front."""

    def __init__(self, network: nn.Module, normalise: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.normalise = normalise

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image if self.normalise is None else self.normalise(image))  # type: ignore[no-any-return]


class BackboneExporter:
    """Exports a backbone and tasks on it as task models.

    preprocess: "in-graph" (input uint8, shape (batch, height, width, 3), normalised inside) or "none" (float32,
    (batch, 3, height, width), normalised by the client).
    """

    def __init__(self, backbone: Backbone, preprocess: str = "in-graph") -> None:
        self._backbone = backbone
        self._in_graph = preprocess == "in-graph"
        self._traced: ir.Model | None = None

    def export_backbone(self) -> TaskModel:
        """Return the backbone as a whole task model, its own head included."""
        return TaskModel(self._export(self._backbone.network))

    def export_task(self, checkpoint: TaskCheckpoint) -> TaskModel:
        """Return the whole network of the task, with labels, preprocessing and provenance.

        Raises tuning's BackboneMismatch when the checkpoint belongs to another backbone.
        """
        model = self._export(build_network(self._backbone, checkpoint))
        preprocessing = self._backbone.spec.preprocessing if self._in_graph else None
        return TaskModel(model, checkpoint.labels, preprocessing, _provenance(self._backbone, checkpoint))

    def _export(self, network: nn.Module) -> ir.Model:
        wrapped = _Wrapped(network, Normalise(self._backbone.spec.preprocessing) if self._in_graph else None).eval()
        if self._traced is None:
            self._traced = trace(_with_distinct_weights(wrapped), self._example(2))
        model = bind(self._traced, wrapped.state_dict())
        self._check(model, wrapped)
        return model

    def _example(self, rows: int) -> torch.Tensor:
        preprocessing = self._backbone.spec.preprocessing
        generator = torch.Generator().manual_seed(0)
        if self._in_graph:
            size = (rows, preprocessing.height, preprocessing.width, 3)
            return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        return torch.randn((rows, 3, preprocessing.height, preprocessing.width), generator=generator)

    def _check(self, model: ir.Model, wrapped: nn.Module) -> None:
        images = self._example(3)
        with torch.inference_mode():
            expected = wrapped(images).numpy()
        found = open_session(model).run(None, {"image": images.numpy()})[0]
        if np.abs(found - expected).max() > _TOLERANCE * max(float(np.abs(expected).max()), 1e-6):
            raise ExportError("The exported ONNX graph does not compute what the torch network computes; nothing was written.")


def trace(module: nn.Module, example: torch.Tensor) -> ir.Model:
    """Return `module` as an unoptimised ONNX model with dynamic batch size; initializers are named like the module's state dict."""
    try:
        program = _export(module.eval(), example)
    except RuntimeError as error:  # torch's own exporter errors are among them
        raise ExportError(f"torch cannot export the network to ONNX ({str(error).strip().splitlines()[0]}).") from error
    if program is None:
        raise ExportError("torch returned no ONNX program for the network.")
    return program.model


def _export(module: nn.Module, example: torch.Tensor) -> torch.onnx.ONNXProgram | None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's internal deprecations are not the user's
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        return torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )


def bind(traced: ir.Model, weights: Mapping[str, torch.Tensor]) -> ir.Model:
    """Return a copy of `traced` with `weights` in place of the initializers of the same names, optimised."""
    model = traced.clone()
    for name, value in model.graph.initializers.items():
        if name in weights:
            value.const_value = ir.tensor(weights[name].detach().contiguous().numpy(), name=name)
            value.shape = ir.Shape(list(weights[name].shape))
    for value in model.graph.outputs:  # a task's head has a size of its own
        value.shape = None
    program = torch.onnx.ONNXProgram(model, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.optimize()
    return program.model


def _with_distinct_weights(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in which no two weights are equal: the exporter merges equal ones, and a merged weight can't be bound."""
    copied = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return copied


def _provenance(backbone: Backbone, checkpoint: TaskCheckpoint) -> dict[str, str]:
    spec = backbone.spec
    return {
        "backbone": spec.name,
        "backbone_weights": spec.weights,
        "backbone_sha256": spec.weights_sha256,
        "subset": json.dumps(list(checkpoint.subset)),
        "seed": str(checkpoint.seed),
        **{key: f"{value:.4g}" for key, value in checkpoint.scores.items()},
    }
