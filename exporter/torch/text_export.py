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
from exporter.torch.transformers_folder import TextNetwork

_ROWS = 3
_FREE_LENGTH = 6  # of the texts that a trace is made with; another one is compared
_FIXED_LENGTH = 128


class TextExporter:
    """Exports networks of one architecture. most: tokens of a text, None: any number. pad: the id that fills up.

    remark: as of NetworkExporter. is_free: texts of any length up to `most`; otherwise all have as many tokens, 128 at most.
    """

    def __init__(self, words: int, most: int | None, pad: int, *, is_free: bool = False) -> None:
        self.remark = ""
        self.length = None if is_free else min(most or _FIXED_LENGTH, _FIXED_LENGTH)
        self._words, self._most, self._pad = words, most, pad
        self._traces: list[ir.Model] = []

    def export(self, network: TextNetwork, name: str) -> ir.Model:
        """Return `network` as an ONNX model. Raises NonFiniteWeights, FailingForward, or ExportError when torch cannot export it."""
        refuse_non_finite(name, network.state_dict(), buffer_names(network))
        given = self._examples(network, _ROWS, self.length or min(_FREE_LENGTH + 3, self._most or _FREE_LENGTH + 3))
        expected = self._answers(network, name, given)
        masks_of(name, network, expected)
        inputs = {key: values.numpy() for key, values in zip(network.inputs, given, strict=True)}
        answers, weights = [answer.numpy() for answer in expected], network.state_dict()
        for traced in self._traces:
            model = bind(traced, weights)
            found = compare(model, inputs, answers)
            if found.fits:
                self.remark = found.remark
                return model
        self._traces.append(self._trace(network))
        model = bind(self._traces[-1], weights)
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

    def _examples(self, network: TextNetwork, rows: int, length: int) -> tuple[torch.Tensor, ...]:
        """Return ids, a mask and types of texts of which each is a token shorter than the one before."""
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
        example = self._examples(network, 2, self.length or min(_FREE_LENGTH, self._most or _FREE_LENGTH))
        return trace(network, example, 0 if self.length else self._most)


def trace(network: TextNetwork, example: tuple[torch.Tensor, ...], most: int | None) -> ir.Model:
    """Return `network` as an unoptimised ONNX model with dynamic batch size; initializers are named like the module's state dict.

    most: tokens of the longest text, None: any number; 0: all have as many as the `example`. Raises ExportError.
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
    sizes = {0: torch.export.Dim("batch")} | ({} if most == 0 else {1: torch.export.Dim("length", max=most)})
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
