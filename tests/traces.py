"""torch traces that are kept for a whole run of the tests: tracing one tiny network takes four seconds, and dozens of tests need it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import nn

Trace = Callable[[nn.Module, torch.Tensor], ir.Model]


def keeping(trace: Trace, folder: Path) -> Trace:
    """Return `trace`, which reads from `folder` what was traced before, by this process or another.

    Equal are networks that are pickled to the same bytes: classes by name, and all that their objects hold, weights included. So it is
    not for tests that write classes of one name with several contents. What comes back has always been through a file.
    """

    def kept(module: nn.Module, example: torch.Tensor) -> ir.Model:
        file = folder / f"{_digest(module, example)}.onnx"
        if not file.exists():
            aside = file.with_suffix(f".{os.getpid()}")
            aside.write_bytes(ir.to_proto(trace(module, example)).SerializeToString())
            aside.replace(file)
        return ir.from_proto(onnx.ModelProto.FromString(file.read_bytes()))

    return kept


class _Pickler(pickle.Pickler):
    """Writes equal objects alike, whether they are one object or several."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fast = True


def _digest(module: nn.Module, example: torch.Tensor) -> str:
    content = io.BytesIO()
    torch.save((module, example), content, pickle_module=SimpleNamespace(__name__="alike", Pickler=_Pickler))
    return hashlib.sha256(content.getvalue()).hexdigest()
