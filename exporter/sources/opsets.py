"""Brings files of later opsets down to one that everything here, and Triton 24.10, runs.

From opset 22 on operators were added, took more types or got attributes; that none was given another meaning is taken from onnx's list of
operators, and held against the file itself by a run (trial.py). So what a later file says with operators, types and attributes that were
there holds as it is, and what came later and is made of earlier operators (Swish,
RMSNormalization, Attention, RotaryEmbedding) is spelt out by onnx's inliner. onnx's own version converter is not used: it loses
functions and what producers note at nodes, and lets attributes pass that the earlier operator has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import onnx
from onnx import defs, inliner

from exporter.errors import BadModel

_MIN_OPSET, _MAX_OPSET = 7, 21  # from what ONNX Runtime runs to what Triton 24.10 accepts
_DEFAULT = ("", "ai.onnx")


def _opset_of(proto: onnx.ModelProto) -> int | None:
    """Return the version of the default domain that `proto` is written in, None if it names none."""
    return next((opset.version for opset in proto.opset_import if opset.domain in _DEFAULT), None)


def lowered(path: Path, proto: onnx.ModelProto) -> tuple[onnx.ModelProto, str | None]:
    """Return `proto` in an opset of _MAX_OPSET at most, and what was done to it, in a sentence; None: nothing.

    Raises BadModel, naming the operator, where that cannot say what the file says; and for opsets that nobody here knows.
    """
    version = _opset_of(proto)
    if version is None or _MIN_OPSET <= version <= _MAX_OPSET:
        return proto, None
    if not _MIN_OPSET <= version <= defs.onnx_opset_version():
        raise BadModel(path, f"uses opset {version}; export it with an opset from {_MIN_OPSET} to {_MAX_OPSET}.")
    newer = {node.op_type for node in _nodes(proto) if _is_new(node, version)}
    if newer:
        proto = _spelt_out(proto, newer, version)
    for node in _nodes(proto):
        _lower(path, node, version)
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        for opset in imports:
            if opset.domain in _DEFAULT:
                opset.version = min(opset.version, _MAX_OPSET)
    spelt_out = f", {' and '.join(sorted(newer))} spelt out" if newer else ""
    return proto, f"was brought from opset {version} down to {_MAX_OPSET}{spelt_out}."


def _spelt_out(proto: onnx.ModelProto, operators: Collection[str], version: int) -> onnx.ModelProto:
    """Return `proto` with earlier operators in the place of `operators`, as far as onnx knows how."""
    known = {value.name for value in proto.graph.value_info}
    for tensor in proto.graph.initializer:  # the inliner knows types of values alone
        if tensor.name not in known:
            proto.graph.value_info.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for node in (node for node in _nodes(proto) if node.domain in _DEFAULT and node.op_type in operators):
        _write_defaults(node, version)
    with suppress(TypeError):  # an onnx that does not spell out its own functions yet
        return inliner.inline_selected_functions(proto, [("", name) for name in operators], inline_schema_functions=True)
    return proto


def _write_defaults(node: onnx.NodeProto, version: int) -> None:
    """Give `node` the attributes that it leaves out: the inliner takes them for empty."""
    written = {attribute.name for attribute in node.attribute}
    for name, attribute in defs.get_schema(node.op_type, version).attributes.items():
        if name not in written and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _lower(path: Path, node: onnx.NodeProto, version: int) -> None:
    """Raise BadModel unless `node` means the same in _MAX_OPSET; leave out what it says there without being said."""
    if node.domain not in _DEFAULT or not defs.has(node.op_type, version):
        return
    if _is_new(node, version):
        raise BadModel(path, _needs(f"the operator {node.op_type}", node, version))
    older = defs.get_schema(node.op_type, _MAX_OPSET)
    for attribute in [attribute for attribute in node.attribute if attribute.name not in older.attributes]:
        if not _is_default(attribute, node, version):
            raise BadModel(path, _needs(f"the attribute {attribute.name!r} of {node.op_type}", node, version))
        node.attribute.remove(attribute)
    if len(node.input) > older.max_input:
        raise BadModel(path, _needs(f"the last input of {node.op_type}", node, version))


def _needs(what: str, node: onnx.NodeProto, version: int) -> str:
    label = node.name or next(iter(node.output), "")
    return f"uses opset {version} and needs it for {what} (node {label!r}); export it with an opset from {_MIN_OPSET} to {_MAX_OPSET}."


def _is_new(node: onnx.NodeProto, version: int) -> bool:
    """Whether the operator came after _MAX_OPSET."""
    return node.domain in _DEFAULT and defs.has(node.op_type, version) and not defs.has(node.op_type, _MAX_OPSET)


def _is_default(attribute: onnx.AttributeProto, node: onnx.NodeProto, version: int) -> bool:
    known = defs.get_schema(node.op_type, version).attributes.get(attribute.name)
    if known is None or not known.default_value.name:
        return False
    return bool(onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(known.default_value))


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _all(proto.graph.node)
    for function in proto.functions:
        yield from _all(function.node)


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all(graph.node)
