"""Reads a segment's model whole: onnx refuses weights in data files that are hard links, as those that segments share are."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from exporter.sources.tensors import is_external, read_tensor


def load_whole(path: Path) -> onnx.ModelProto:
    """Return the model at `path` with all of its weights inside of it. Raises OSError, ValueError where one is not there."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if is_external(tensor) and (values := read_tensor(tensor, path.parent, linked=True)) is not None:
            tensor.CopyFrom(ir.to_proto(values))
    return model
