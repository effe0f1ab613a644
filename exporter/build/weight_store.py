"""Keeps the weights of many networks on disk, equal ones once, so that memory holds the weights of one network at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from exporter.graph.digests import tensor_content, weight_digest
from exporter.graph.shapes import bytes_of

SMALLEST_STORED = 4096  # bytes; smaller weights stay in the graph, a file each would cost more than it saves
PAGE = 4096  # what a system maps into memory begins at one of its pages
LARGEST_PROTOBUF = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB


class WeightStore:
    """Weights in files named by their content, in `folder`, beside the models that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take_over(self, model: ir.Model) -> None:
        """Move the large initializers of `model` to files; their tensors are then read on demand.

        The small ones are copied: a tensor of a protobuf message would keep the whole file that it was read from in memory.
        """
        for value in model.graph.initializers.values():
            if value.const_value is None:
                continue
            if value.const_value.nbytes >= SMALLEST_STORED:
                value.const_value = self._stored(value, value.const_value)
            elif isinstance(value.const_value, ir.serde.TensorProtoTensor):
                value.const_value = _copied(value.const_value)

    def save(self, model: ir.Model, name: str) -> Path:
        """Write `model`, whose weights have been taken over, as `name`.onnx; return the file."""
        path = self.folder / f"{name}.onnx"
        ir.save(model, path)
        return path

    def _stored(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        file = self.folder / weight_digest(value).hex()
        if not file.exists():
            file.write_bytes(tensor_content(tensor))
        shape = ir.Shape(tensor.numpy().shape)
        return ir.ExternalTensor(
            file.name, 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name), base_dir=self.folder
        )


def save_with_weights(model: ir.Model, path: Path, outside: Collection[str] = ()) -> None:
    """Write `model` as one file, or, beyond what one protobuf may hold, with its weights in a file beside it.

    outside: names of initializers that are in other files beside it, as its external tensors say.
    """
    inner = [value for name, value in model.graph.initializers.items() if name not in outside and value.const_value is not None]
    for value in inner:
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _in_memory(value.const_value)
    size = sum(value.const_value.nbytes for value in inner if value.const_value is not None)
    data = f"{path.name}.data" if size > LARGEST_PROTOBUF else None
    if data is not None and outside:  # onnx_ir would move those in other files, too
        _put_beside(inner, path.with_name(data))
    ir.save(model, path, external_data=None if outside else data)


def _put_beside(values: Iterable[ir.Value], file: Path) -> None:
    """Move the large ones of `values` to `file`, a new one."""
    large = [value for value in values if value.const_value is not None and value.const_value.nbytes >= SMALLEST_STORED]
    write_tensors(large, file)
    for value, offset in zip(large, offsets_of(large), strict=True):
        place_outside(value, file, offset)


def write_tensors(values: Sequence[ir.Value], file: Path) -> None:
    """Write the tensors of `values` into `file`, a new one, at `offsets_of` them."""
    with file.open("xb") as stream:
        for value, offset in zip(values, offsets_of(values), strict=True):
            tensor = value.const_value
            assert tensor is not None
            stream.write(bytes(offset - stream.tell()))
            stream.write(tensor_content(tensor))
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()


def offsets_of(values: Iterable[ir.Value]) -> list[int]:
    """Return where the tensors of `values` begin in a file of theirs: each at a page, which a runtime may map."""
    offsets, end = [], 0
    for value in values:
        offsets.append(-(-end // PAGE) * PAGE)
        end = offsets[-1] + bytes_of(value)
    return offsets


def place_outside(value: ir.Value, file: Path, offset: int) -> None:
    """Let the model of `value` look for its tensor in `file`, in the model's folder, from byte `offset` on."""
    tensor = value.const_value
    assert tensor is not None
    shape = ir.Shape([int(str(size)) for size in tensor.shape])
    value.const_value = ir.ExternalTensor(
        file.name, offset, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name), base_dir=file.parent
    )


def _in_memory(stored: ir.ExternalTensor) -> ir.TensorProtocol:
    """Return a copy, and let go of the file: a network's weights are needed segment by segment."""
    copied = _copied(stored)
    stored.release()
    return copied


def _copied(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)
