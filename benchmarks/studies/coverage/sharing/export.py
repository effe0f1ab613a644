"""Writes the networks of a family as ONNX files, as their owners would."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from benchmarks.studies.coverage.sharing.family import TaskFamily
from exporter.errors import ExportError
from exporter.torch.compare import compare
from exporter.torch.export import NetworkExporter

_OPSET = 18


def write_networks(family: TaskFamily, folder: Path) -> dict[str, Path]:
    """Write the networks of `family` into `folder`; return their files by task. Images go through `exporter.torch`, texts are exported
    one by one. Raises ExportError, or what torch raises.
    """
    files = {}
    exporters: dict[str, NetworkExporter] = {}
    for name, task in family.tasks.items():
        files[name] = folder / f"{name}.onnx"
        if [*family.inputs] == ["image"]:
            height, width = family.inputs["image"].shape[-2:]
            exporter = exporters.setdefault(task.kind, NetworkExporter(height, width, "none"))
            model = exporter.export(task.network, None)
        else:
            model = _export(task.network, family.inputs)
        ir.save(model, files[name])
    return files


def _export(network: nn.Module, inputs: Mapping[str, Tensor]) -> ir.Model:
    names = [name for name in inspect.signature(network.forward).parameters if name in inputs]
    rows = {name: inputs[name] for name in names}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (),
            kwargs=rows,
            dynamo=True,
            opset_version=_OPSET,
            dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in names},
            input_names=names,
            verbose=False,
        )
        expected = network(**rows)
    if program is None:
        raise ExportError("torch returned no ONNX program for the network.")
    answers = [expected] if isinstance(expected, Tensor) else [*expected.values()]
    found = compare(program.model, {name: value.numpy() for name, value in rows.items()}, [value.numpy() for value in answers])
    if not found.fits:
        raise ExportError(f"The ONNX graph does not compute what the torch network computes{found.figures}.")
    return program.model
