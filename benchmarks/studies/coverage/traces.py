"""Traces of networks, kept in a folder: tracing takes most of the time, and a change of the passes does not change them."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from exporter.errors import ExportError
from exporter.torch.export import trace


@dataclass(frozen=True)
class _Trace:
    """The unoptimised graph of a network with dynamic batch, or why torch cannot make it. `seconds`: how long that took."""

    model: ir.Model | None
    reason: str
    seconds: float


def traced(network: nn.Module, size: int, name: str, cache: Path | None) -> _Trace:
    """Return the trace of `network` on square images of `size` pixels; from `cache`, when it is there under `name`."""
    file = cache / f"{name}-{size}.onnx" if cache else None
    note = file.with_suffix(".json") if file else None
    if file and note and note.exists():
        kept = json.loads(note.read_text())
        return _Trace(_load(file) if file.exists() else None, kept["reason"], kept["seconds"])
    result = _trace(network, size)
    if file and note:
        file.parent.mkdir(parents=True, exist_ok=True)
        if result.model is not None:
            ir.save(result.model, file, external_data=f"{file.name}.data")
        note.write_text(json.dumps({"reason": result.reason, "seconds": result.seconds}))
    return result


def _trace(network: nn.Module, size: int) -> _Trace:
    started = time.perf_counter()
    model, reason = None, ""
    try:
        model = trace(network, torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0)))
    except ExportError as error:
        reason = _root_cause(error)
    return _Trace(model, reason, time.perf_counter() - started)


def _root_cause(error: BaseException) -> str:
    """Return the first line of the error that all others follow from, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _load(file: Path) -> ir.Model:
    return ir.external_data.load_to_model(ir.load(file))
