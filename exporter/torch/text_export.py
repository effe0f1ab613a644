"""torch networks of text -> ONNX. Those of one architecture are traced once, as those of images are (`exporter.torch.export`)."""

from __future__ import annotations

import logging
import warnings

import onnx_ir as ir
import torch
from torch import nn

from exporter.errors import ExportError, FailingForward
from exporter.sources.onnx_file import first_line
from exporter.torch.compare import compare
from exporter.torch.export import OPSET, bind, refuse_uncertain, with_distinct_weights
from exporter.torch.finite import buffer_names, masks_of, refuse_non_finite
from exporter.torch.known_trace import KnownTrace
from exporter.torch.transformers_folder import TextNetwork

_TRACED, _COMPARED = (
    (2, 6),
    (3, 9),
)  # texts and tokens of each, with which a trace is made, and its answers are compared with torch's


class TextExporter:
    """Exports networks of one architecture. most: tokens of a text, None: any number. pad: the id that fills up.

    The length of texts stays free. remark: as of NetworkExporter.
    """

    def __init__(self, words: int, most: int | None, pad: int) -> None:
        self.remark = ""
        self._words, self._most, self._pad = words, most, pad
        self._traces: list[KnownTrace] = []

    def export(self, network: TextNetwork, name: str) -> ir.Model:
        """Return `network` as an ONNX model. Raises NonFiniteWeights, FailingForward, or ExportError when torch cannot export it."""
        refuse_non_finite(name, network.state_dict(), buffer_names(network))
        given = self._examples(network, *_COMPARED)
        expected = self._answers(network, name, given)
        masks_of(name, network, expected)
        inputs = {key: values.numpy() for key, values in zip(network.inputs, given, strict=True)}
        answers, weights = [answer.numpy() for answer in expected], network.state_dict()
        for known in (known for known in self._traces if known.takes(weights)):
            model = bind(known.model, weights)
            found = compare(model, inputs, answers)
            if found.fits:
                self.remark = found.remark
                return model
        self._traces.append(KnownTrace.of(self._trace(network), weights))
        model = bind(self._traces[-1].model, weights)
        found = compare(model, inputs, answers)
        self.remark = found.remark
        if not found.fits:
            refuse_uncertain(network, model)
            raise ExportError(
                f"{name}: the exported ONNX graph does not compute what torch computes{found.figures}; nothing was written."
            )
        return model

    def _answers(self, network: TextNetwork, name: str, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        try:
            with torch.inference_mode():
                return network(*given)  # type: ignore[no-any-return]
        except Exception as error:  # of the network's own code
            raise FailingForward(name, tuple(given[0].shape), type(error).__name__, str(error)) from error

    def _examples(self, network: TextNetwork, rows: int, tokens: int) -> tuple[torch.Tensor, ...]:
        """Return ids, a mask and types of texts of which each is a token shorter than the one before."""
        length = min(tokens, self._most or tokens)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self._words, (rows, length), generator=generator)
        ids = torch.where(ids == self._pad, (ids + 1) % self._words, ids)
        mask = (torch.arange(length)[None] < torch.clamp(length - torch.arange(rows)[:, None], min=1)).to(torch.int64)
        tensors = {
            "input_ids": torch.where(mask == 1, ids, self._pad),
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(ids),
        }
        return tuple(tensors[name] for name in network.inputs)

    def _trace(self, network: TextNetwork) -> ir.Model:
        return trace(network, self._examples(network, *_TRACED), self._most)


def trace(network: TextNetwork, example: tuple[torch.Tensor, ...], most: int | None) -> ir.Model:
    """Return `network` as an unoptimised ONNX model of any batch size and length; initializers are named like the module's state dict.

    most: tokens of the longest text, None: any number. Raises ExportError.
    """
    try:
        program = _export(with_distinct_weights(network), example, network, most)
    except Exception as error:  # whatever the network's own code raises, and torch's exporter about it
        raise ExportError(f"torch cannot export the network to ONNX ({first_line(error)}).") from error
    if program is None:
        raise ExportError("torch returned no ONNX program for the network.")
    return program.model


def _export(
    module: nn.Module, example: tuple[torch.Tensor, ...], network: TextNetwork, most: int | None
) -> torch.onnx.ONNXProgram | None:
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=most)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's internal deprecations are not the user's
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        return torch.onnx.export(
            module,
            example,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_shapes=(tuple(sizes for _ in example),),
            verbose=False,
        )
