"""Shapes node by node, for passes that change the graph on their way through it."""

from __future__ import annotations

from collections import ChainMap

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from contract.dtypes import Array
from exporter.graph.foreign import CONTROL_FLOW, ask_runtime, is_foreign
from exporter.graph.shapes import LARGEST_FOLLOWED, Inferred, function_protos, known_inputs, name_of, run_node


class NodeShapes:
    """Shapes, and contents of small integers, of the tensors that have been visited; those of inputs and constants are there."""

    def __init__(self, model: ir.Model, batch: int) -> None:
        self._model = model
        self.known = Inferred({}, {})
        for value in model.graph.inputs:
            sizes = [dim if isinstance(dim, int) else batch for dim in value.shape or ()]
            self.known.shapes[name_of(value)] = (batch, *sizes[1:])

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the shape of `value`, None where it is not known."""
        if value is not None and value.const_value is not None:
            return tuple(size for size in value.const_value.shape if isinstance(size, int))
        return self.known.shapes.get(name_of(value))

    def content(self, value: ir.Value | None) -> Array | None:
        """Return what is in `value`, if it is small and known."""
        if value is not None and value.const_value is not None:
            return value.const_value.numpy() if value.const_value.size <= LARGEST_FOLLOWED else None
        return self.known.contents.get(name_of(value))

    def visit(self, node: ir.Node) -> None:
        """Take note of the results of `node`. Raises what onnx does where its inputs do not fit together."""
        given = {name_of(value): value for value in node.inputs if value is not None}
        contents = {name: content for name, value in given.items() if (content := self.content(value)) is not None}
        shapes = {name: shape for name, value in given.items() if (shape := self.shape(value)) is not None}
        if len(shapes) < len(given):
            return
        proto = ir.to_proto(node)
        inputs = known_inputs(proto, shapes, ChainMap(contents))
        outputs = run_node(proto, inputs, dict(self._model.opset_imports)) if inputs is not None else None
        if outputs is not None and all(output.size <= LARGEST_FOLLOWED for output in outputs):
            self.known.contents.update(zip(proto.output, outputs, strict=False))
            self.known.shapes.update({name: array.shape for name, array in zip(proto.output, outputs, strict=False)})
        else:
            self.known.shapes.update(self._infer(node, proto, shapes, contents))

    def _infer(
        self, node: ir.Node, proto: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], contents: dict[str, Array]
    ) -> dict[str, tuple[int, ...]]:
        graph = onnx.GraphProto(name="node")
        graph.node.append(proto)
        for value in dict.fromkeys(value for value in node.inputs if value is not None):
            name, dtype = name_of(value), value.dtype or ir.DataType.FLOAT
            if name in contents and np.issubdtype(contents[name].dtype, np.integer):
                graph.initializer.append(numpy_helper.from_array(contents[name], name))
            else:
                graph.input.append(onnx.helper.make_tensor_value_info(name, dtype.value, shapes[name]))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output if name)
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in self._model.opset_imports.items()]
        functions = function_protos(self._model) if node.domain == CONTROL_FLOW else []
        model = onnx.helper.make_model(graph, ir_version=self._model.ir_version, opset_imports=opsets, functions=functions)
        if is_foreign(node.domain):
            weights = [
                ir.to_proto(value.const_value) for value in node.inputs if value is not None and value.const_value is not None
            ]
            named = {value.name for value in graph.input}
            return dict(ask_runtime(model, [tensor for tensor in weights if tensor.name in named]).shapes)
        found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        return {
            info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            for info in found.output
            if info.type.tensor_type.HasField("shape")
            and all(dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim)
        }
