"""A repository of models that espalier did not export: some that can be served, some that cannot, and why; how they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.serving.nets import write_repository
from tests.serving.plain_models import (
    add_sub,
    add_sub_of_strings,
    config_of,
    identity,
    matmul,
    onnx_model,
    ranking,
    scaled,
    write_model,
)
from tests.serving.protocol.test_control import Controller

ENSEMBLE = 'platform: "ensemble" max_batch_size: 1 ensemble_scheduling { step [ { model_name: "simple" model_version: -1 } ] }'
UNBATCHED = """backend: "onnxruntime"
input [ { name: "a" data_type: TYPE_FP32 dims: [ 2, -1 ] }, { name: "b" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
output [ { name: "c" data_type: TYPE_FP32 dims: [ 2, 3 ] } ]"""
RANKED = 'output [ { name: "scores" label_filename: "colours.txt" }, { name: "best" } ]'
PARTIAL = """backend: "onnxruntime" max_batch_size: 2 instance_group [ { count: 2 } ]
input [ { name: "x" } ] output [ { name: "y" dims: [ 3 ] } ]"""
RESHAPED = """max_batch_size: 4 input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } } ]"""
SERVED = (
    "bare",
    "external",
    "fixed",
    "matmul",
    "named",
    "partial",
    "ranking",
    "reshaped",
    "scalar",
    "simple",
    "simple_string",
    "strings",
    "versions",
)


def write_served(root: Path) -> None:
    write_model(root / "simple", add_sub(), config_of("INT32"))
    write_model(root / "simple_string", add_sub_of_strings(), config_of("STRING"))
    write_model(root / "strings", identity(("N", "k"), TensorProto.STRING))
    write_model(root / "matmul", matmul(), UNBATCHED)
    write_model(root / "fixed", identity((1, 3)))
    write_model(root / "scalar", identity(()))
    write_model(root / "bare", identity())
    write_model(root / "ranking", ranking(), RANKED)
    (root / "ranking/colours.txt").write_text("red\ngreen\nblue\n")
    write_model(root / "partial", identity(), PARTIAL)
    write_model(root / "reshaped", identity(("N", 2, 2)), RESHAPED)
    write_model(root / "external", scaled("w.bin"), file="1/model.onnx/model.onnx")
    (root / "external/1/model.onnx/w.bin").write_bytes(floats(3).tobytes())
    write_model(root / "named", identity(), 'default_model_filename: "net.onnx" backend: "onnxruntime"', "1/net.onnx")
    for version in (1, 3, 10):
        write_model(
            root / "versions",
            identity(factor=version),
            "version_policy { specific { versions: [ 3 ] } }",
            f"{version}/model.onnx",
        )


def sequence_model() -> onnx.ModelProto:
    model = onnx_model([helper.make_node("SequenceConstruct", ["x"], ["y"])], {"x": ("N", 3)}, {"y": ("N", 3)})
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ("N", 3)))
    return model


# What cannot be served: how it is written, and what its reason says.
UNSERVED: dict[str, tuple[Any, str | None, str]] = {
    "a_python": (None, 'backend: "python"', "It is for 'python'; beside what espalier exports, only ONNX"),
    "an_ensemble": (None, ENSEMBLE, "It is an ensemble that espalier did not write"),
    "a_torch": (None, None, "It has no model.onnx; beside what espalier exports, only ONNX"),
    "damaged": (b"no model", None, "ONNX Runtime does not open its 1/model.onnx ("),
    "garbled": (identity(), "max_batch_size {", "garbled/config.pbtxt is not a Triton model configuration"),
    "misnamed": (identity(), 'name: "another"', "Its config.pbtxt is named 'another'; it must be named like its folder."),
    "of_a_future": (identity(), 'parameters { key: "espalier_kind" value { string_value: "tower" } }', "It is a 'tower' of another"),
    "other_type": (add_sub(), config_of("FP32"), "says that 'INPUT0' is FP32; in its file it is INT32"),
    "other_shape": (add_sub(), config_of("INT32", dims=8), "'INPUT0' has shape [-1, 8], the rows first; in its file it has [-1, 16]"),
    "other_names": (identity(), config_of("FP32"), "names the inputs 'INPUT0' and 'INPUT1'; those of its file are 'x'."),
    "no_rows": (add_sub(shape=(1, 16)), config_of("INT32"), "Its max_batch_size is 8, but in its file 'INPUT0' has shape [1, 16]"),
    "sequences": (add_sub(), config_of("INT32", more="sequence_batching { }"), "asks for sequence_batching, which is not offered here"),
    "gives_sequences": (sequence_model(), None, "'y' is a seq(tensor(float)) in its file, which is not served here"),
    "two_versions": (identity(), "version_policy { all { } }", "asks for versions 1 and 2 at once, and one is served"),
    "no_version": (identity(), "version_policy { specific { versions: 7 } }", "Its version_policy names version 7, which is not there."),
    "no_labels": (identity(), 'output [ { name: "y" label_filename: "../x" } ]', "Its labels file '../x' is not beside its config.pbtxt."),
    "outside": (scaled("../../secret.bin"), None, "ONNX Runtime does not open its 1/model.onnx ("),
    "no_file": (identity(), 'default_model_filename: "net.onnx"', "It has no 1/net.onnx."),
}  # fmt: skip


def write_unserved(root: Path) -> None:
    for name, (model, config, _) in UNSERVED.items():
        write_model(root / name, b"" if model is None else model, config, "1/model.pt" if model is None else "1/model.onnx")
    write_model(root / "two_versions", identity(), None, "2/model.onnx")
    write_model(root / ".hidden", identity())
    (root / "notes").mkdir()
    (root / "secret.bin").write_bytes(b"not theirs!!")


def write_folder(folder: Path) -> Path:
    """Ours, other people's, and what cannot be served, in one repository."""
    write_repository(folder)
    write_served(folder)
    write_unserved(folder)
    return folder


def ask(client: Controller, model: str, inputs: dict[str, Any], outputs: dict[str, int] | None = None, **options: Any) -> Any:
    """inputs: arrays by name. outputs: the classes wanted of each, 0: values."""
    tensors = []
    for name, array in inputs.items():
        dtype = {"i": "INT32", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
        tensors.append(client.module.InferInput(name, list(array.shape), dtype))
        tensors[-1].set_data_from_numpy(array)
    wanted = [client.module.InferRequestedOutput(name, class_count=count) for name, count in (outputs or {}).items()]
    return client.client.infer(model, tensors, outputs=wanted or None, **options)


def floats(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def strings(numbers: Any) -> Any:
    return np.array([str(number).encode() for number in numbers.ravel()], object).reshape(numbers.shape)
