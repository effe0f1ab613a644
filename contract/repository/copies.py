"""The models that only copy a tensor: what `all_tasks` needs on Triton where tasks have equal outputs."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from contract.dtypes import onnx_dtype
from contract.repository.unite import Copy


def copy_model(copy: Copy) -> onnx.ModelProto:
    """Return the ONNX model of `copy`: rows of its kind of tensor in, the same rows out."""
    element = TensorProto.DataType.Value(onnx_dtype(copy.spec.dtype))
    (given,) = copy.inputs
    (copied,) = copy.outputs
    infos = [helper.make_tensor_value_info(spec.name, element, ["batch", *spec.shape]) for spec in (given, copied)]
    graph = helper.make_graph([helper.make_node("Identity", [given.name], [copied.name])], copy.model, infos[:1], infos[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
