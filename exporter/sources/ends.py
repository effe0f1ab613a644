"""What goes into a network and comes out, where it is no tensor of numbers: text, and the maps that scikit-learn's converters end in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from exporter.errors import BadModel
from exporter.sources.maps import is_zip_map


@dataclass(frozen=True)
class Ends:
    """What was done to the ends of a network, in sentences, and what it calls its classes."""

    remarks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def plain_ends(path: Path, proto: onnx.ModelProto) -> Ends:
    """Leave tensors of numbers at the ends of `proto`, changed in place, and return what that took.

    ZipMap goes: what it puts into a map per row is served as a vector. An output of text goes where there are others: it names the class
    of the largest score. Raises BadModel, naming it, for an input that is no tensor of numbers, and where no output is one.
    """
    for value in proto.graph.input:
        if kind := _kind(value):
            raise BadModel(
                path, f"takes {kind} in {value.name!r}; a task takes tensors of numbers, so leave what reads it to the client."
            )
    makers = {name: node for node in proto.graph.node for name in node.output}
    remarks, labels = list[str](), tuple[str, ...]()
    for value in list(proto.graph.output):
        maker = makers.get(value.name)
        if maker is not None and is_zip_map(maker):
            labels = _labels(maker) or labels
            remarks.append(_drop_map(proto.graph, value, maker))
        elif _kind(value) == "text":
            labels = labels or (_labels(maker) if maker is not None else ())
            remarks.append(f"gives text in {value.name!r}, which is left out; the other outputs are served.")
            proto.graph.output.remove(value)
        elif kind := _kind(value):
            by = f", made by {maker.op_type}," if maker is not None else ""
            raise BadModel(path, f"gives {kind} in {value.name!r}{by} where a task gives tensors; export the network without it.")
    if not proto.graph.output:
        raise BadModel(path, "gives nothing but text; a task gives tensors of numbers, so let the network give its scores, too.")
    return Ends(tuple(remarks), labels)


def _drop_map(graph: onnx.GraphProto, value: onnx.ValueInfoProto, maker: onnx.NodeProto) -> str:
    """Put the tensor that `maker` makes a map of in the place of the output `value`; return what that means."""
    scores, size = maker.input[0], len(_labels(maker))
    if any(output.name == scores for output in graph.output):
        graph.output.remove(value)
    else:
        value.CopyFrom(helper.make_tensor_value_info(scores, TensorProto.FLOAT, [None, size]))
    graph.node.remove(maker)
    return f"gives a map of classes per row in {maker.output[0]!r}; the vector that it is made of, {scores!r}, is served instead."


def _labels(node: onnx.NodeProto) -> tuple[str, ...]:
    return tuple(_attribute_labels(node))


def _attribute_labels(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings":
            yield from (text.decode("utf-8", "replace") for text in attribute.strings)
        elif attribute.name in ("classlabels_int64s", "classlabels_ints"):
            yield from map(str, attribute.ints)


def _kind(value: onnx.ValueInfoProto) -> str:
    """Return what `value` is, in words, unless it is a tensor of numbers or nothing is said of it."""
    kind = value.type.WhichOneof("value")
    if kind in ("tensor_type", None):
        return "text" if value.type.tensor_type.elem_type == TensorProto.STRING else ""
    return f"a {str(kind).removesuffix('_type').replace('_', ' ')}"
