"""torch networks -> ONNX.

Tracing a network takes seconds, and all tasks of one backbone have the same architecture. So an architecture is traced once, without any
optimisation, and each task's weights are put into a copy of that graph; folding (BatchNorm into convolutions, say) comes after. What
comes out is compared with torch's own result before it is used.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import nn

from contract.preprocessing import Preprocessing
from exporter.build.row_coupling import refuse_random
from exporter.errors import ExportError, StaysInTraining
from exporter.graph.coupling import random_suspects
from exporter.graph.passes.head import adapt_head
from exporter.graph.passes.optimise import optimise
from exporter.sources.onnx_file import first_line
from exporter.sources.task_model import TaskModel
from exporter.torch.compare import Comparison, compare
from exporter.torch.finite import buffer_names, masks_of, refuse_non_finite
from exporter.torch.known_trace import KnownTrace
from exporter.torch.outputs import flatten, name_outputs, run_network
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network
from tuning.network.normalise import Normalise

OPSET = 18


class _Wrapped(nn.Module):
    """The network as it is exported: with or without the normalisation in front."""

    def __init__(self, network: nn.Module, normalise: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.normalise = normalise

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return flatten(self.network(self.given(image)))

    def given(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the network is given."""
        return image if self.normalise is None else self.normalise(image)


class NetworkExporter:
    """Exports networks of one architecture and input size: the first is traced, and the weights of the others are bound into its trace.

    height, width: pixels of the input. preprocess: "in-graph" (input uint8, shape (batch, height, width, 3), normalised inside) or
    "none" (float32, (batch, 3, height, width), normalised by the client). remark: what to know of the network that was exported last, to
    be read after its name.
    """

    def __init__(self, height: int, width: int, preprocess: str = "in-graph") -> None:
        self.remark = ""
        self._masks: tuple[str, ...] = ()
        self._size = (height, width)
        self._in_graph = preprocess == "in-graph"
        self._traces: list[KnownTrace] = []

    def export(self, network: nn.Module, preprocessing: Preprocessing | None, name: str = "The network") -> ir.Model:
        """Return `network` as an ONNX model. preprocessing: its normalisation, which "in-graph" needs. name: how to call it in errors.

        A dict that it returns gives outputs by its keys, a tuple output_0, ... Raises NonFiniteWeights, FailingForward,
        UnsupportedOutput, or ExportError when torch cannot export the network or ONNX computes something else.
        """
        refuse_non_finite("the network", network.state_dict(), buffer_names(network))
        wrapped = self._wrapped(network, preprocessing)
        weights, images = wrapped.state_dict(), self._example(3)
        expected = {
            output: tensor.numpy() for output, tensor in run_network(name, wrapped.network, wrapped.given(images)).items()
        }
        self._masks = masks_of("the network", network, map(torch.from_numpy, expected.values()))
        for known in (known for known in self._traces if known.takes(weights)):
            model = bind(known.model, weights)
            if self._fits(compare(model, {"image": images.numpy()}, [*expected.values()])):
                return model
        # The first of its kind, or a head whose size is written into the graph, as in the Reshape after a convolution.
        traced = trace(with_distinct_weights(wrapped), self._example(2))
        if len(expected) > 1:
            name_outputs(traced, list(expected))
        self._traces.append(KnownTrace.of(traced, weights))
        del traced
        model = bind(self._traces[-1].model, weights)
        found = compare(model, {"image": images.numpy()}, [*expected.values()])
        if not self._fits(found):
            refuse_uncertain(wrapped, model)
            sentence = f"The exported ONNX graph does not compute what the torch network computes{found.figures}"
            raise ExportError(f"{sentence}; nothing was written.")
        return model

    def export_again(self, network: nn.Module, preprocessing: Preprocessing | None) -> ir.Model:
        """Return `network`, which differs from the one exported last in the values of its weights alone, without comparing results.

        For models that are never run.
        """
        return bind(self._traces[-1].model, self._wrapped(network, preprocessing).state_dict())

    def _fits(self, found: Comparison) -> bool:
        masks = [f"has infinite numbers in the buffer {name!r}, which is taken for a mask." for name in self._masks]
        self.remark = " It ".join(said for said in (found.remark, *masks) if said)
        return found.fits

    def _wrapped(self, network: nn.Module, preprocessing: Preprocessing | None) -> _Wrapped:
        normalise = Normalise(preprocessing) if self._in_graph and preprocessing is not None else None
        return _Wrapped(network, normalise).eval()

    def _example(self, rows: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        if self._in_graph:
            return torch.randint(0, 256, (rows, *self._size, 3), dtype=torch.uint8, generator=generator)
        return torch.randn((rows, 3, *self._size), generator=generator)


class BackboneExporter:
    """Exports a backbone and tasks on it as task models. preprocess: as in NetworkExporter; `exporter`: one to share a trace with."""

    def __init__(self, backbone: Backbone, preprocess: str = "in-graph", exporter: NetworkExporter | None = None) -> None:
        size = backbone.spec.preprocessing
        self._backbone = backbone
        self._exporter = exporter or NetworkExporter(size.height, size.width, preprocess)

    def export_backbone(self) -> TaskModel:
        """Return the backbone as a whole task model, its own head included."""
        model = self._export(self._backbone.network)
        return TaskModel(model, preprocessing=self._backbone.spec.preprocessing, remark=self._exporter.remark)

    def export_task(self, checkpoint: TaskCheckpoint) -> TaskModel:
        """Return the whole network of the task, with labels, preprocessing and provenance.

        Raises tuning's BackboneMismatch when the checkpoint belongs to another backbone.
        """
        model = self._export(build_network(self._backbone, checkpoint))
        preprocessing = self._backbone.spec.preprocessing
        provenance = _provenance(self._backbone, checkpoint)
        return TaskModel(model, checkpoint.labels, preprocessing, provenance, remark=self._exporter.remark, kind=checkpoint.kind)

    def _export(self, network: nn.Module) -> ir.Model:
        return self._exporter.export(network, self._backbone.spec.preprocessing)


def trace(module: nn.Module, example: torch.Tensor) -> ir.Model:
    """Return `module` as an unoptimised ONNX model with dynamic batch size; initializers are named like the module's state dict."""
    try:
        program = _export(module.eval(), example)
    except Exception as error:  # whatever the network's own code raises, and torch's exporter about it
        raise ExportError(f"torch cannot export the network to ONNX ({first_line(error)}).") from error
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
    given = [value for name, value in model.graph.initializers.items() if name in weights]
    heads: dict[ir.Value, tuple[int, int]] = {}
    for name, value in model.graph.initializers.items():
        if name in weights:
            old, new = list(value.shape or ()), list(weights[name].shape)
            if old != new:
                heads[value] = int(str(old[0])), new[0]
            value.const_value = ir.tensor(weights[name].detach().contiguous().numpy(), name=name)
            value.shape = ir.Shape(new)
    adapt_head(model.graph, heads)
    for value in model.graph.outputs:  # a task's head has a size of its own
        value.shape = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimise(model)
    kept = set(map(id, model.graph.initializers.values()))
    for value in given:
        if (
            id(value) not in kept
        ):  # folded into others; the graph's garbage would keep all of a network until Python looks for cycles
            value.const_value = None
    return model


def refuse_uncertain(network: nn.Module, model: ir.Model) -> None:
    """Raise ExportError if `network` computes something else each time, or by the batch, which no `model` of it could equal."""
    refuse_random("The network", random_suspects(model))
    for name, module in network.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise StaysInTraining(name.removeprefix("network."), type(module).__name__)


def with_distinct_weights(module: nn.Module) -> nn.Module:
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
