"""Answers are written in parts, some of them remembered: together they are the message that protobuf would write."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2

from contract.dtypes import Array, dtype_name
from serving.protocol.grpc.codec import encode_response
from serving.requests import InferResponse

pb: Any = service_pb2
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.uint8]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
texts = st.sampled_from(["", "a", "später", "x" * 200])


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(texts, arrays, max_size=3), texts, texts, texts, st.dictionaries(texts, texts, max_size=1), st.booleans())
def test_the_parts_are_what_protobuf_writes(
    outputs: dict[str, Array], model: str, version: str, identity: str, errors: dict[str, str], in_stream: bool
) -> None:
    wanted = pb.ModelInferResponse(model_name=model, model_version=version, id=identity)
    for name, reason in errors.items():
        wanted.parameters[f"error.{name}"].string_param = reason
    if in_stream:
        wanted.parameters["triton_final_response"].bool_param = True
    for name, array in outputs.items():
        wanted.outputs.add(name=name, datatype=dtype_name(array), shape=array.shape)
        wanted.raw_output_contents.append(array.tobytes())
    found = encode_response(InferResponse(model, version, identity, outputs, (), errors), {}, in_stream=in_stream)
    if in_stream:
        assert pb.ModelStreamInferResponse.FromString(found).infer_response == wanted
    else:
        assert pb.ModelInferResponse.FromString(found) == wanted
        assert in_stream or errors or found == wanted.SerializeToString()
