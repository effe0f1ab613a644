"""What one would write by hand for Triton: a repository of networks, or of a trunk and heads, with an ensemble over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

_TYPES = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
_ROWS = 64


def write_separate(models: Path, folder: Path) -> None:
    """Write `folder` with the whole networks below `models`, and all_tasks, which hands the image to each."""
    files = {file.stem: file for file in sorted((models / "separate").glob("*.onnx"))}
    steps = [_step(name, file, "image", name) for name, file in files.items()]
    _write(folder, files, steps)


def write_shared(models: Path, folder: Path) -> None:
    """Write `folder` with trunk and heads below `models`, and all_tasks, which runs the trunk and then the heads."""
    heads = {file.stem: file for file in sorted((models / "shared" / "heads").glob("*.onnx"))}
    trunk = models / "shared" / "trunk.onnx"
    steps = [_step("trunk", trunk, "image", "features")]
    steps += [_step(f"head-{name}", file, "features", name) for name, file in heads.items()]
    _write(folder, {"trunk": trunk, **{f"head-{name}": file for name, file in heads.items()}}, steps)


def written_files(folder: Path) -> list[Path]:
    """Return what a user would have had to write."""
    return sorted(folder.glob("*/config.pbtxt"))


def _write(folder: Path, files: Mapping[str, Path], steps: Iterable[str]) -> None:
    for name, file in files.items():
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(file.absolute())
        tensors = [*_tensors(file, "input"), *_tensors(file, "output")]
        head = ['backend: "onnxruntime"', f"max_batch_size: {_ROWS}", "instance_group { count: 1 }", "dynamic_batching { }"]
        (folder / name / "config.pbtxt").write_text("\n".join([*head, *tensors]) + "\n")
    (folder / "all_tasks" / "1").mkdir(parents=True)
    tasks = [file for name, file in files.items() if name != "trunk"]
    image = _tensors(next(iter(files.values())), "input", "image")
    outputs = [line for file in tasks for line in _tensors(file, "output", file.stem)]
    head = ['platform: "ensemble"', f"max_batch_size: {_ROWS}", *image, *outputs]
    (folder / "all_tasks" / "config.pbtxt").write_text("\n".join([*head, "ensemble_scheduling {", *steps, "}"]) + "\n")


def _tensors(file: Path, kind: str, name: str = "") -> list[str]:
    """Return the line of the network's one input or output."""
    graph = onnx.load(file, load_external_data=False).graph
    (value,) = graph.input if kind == "input" else graph.output
    tensor = value.type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim][1:]
    return [f'{kind} {{ name: "{name or value.name}" data_type: {_TYPES[tensor.elem_type]} dims: {dims} }}']


def _step(model: str, file: Path, takes: str, gives: str) -> str:
    graph = onnx.load(file, load_external_data=False).graph
    maps = f'input_map {{ key: "{graph.input[0].name}" value: "{takes}" }} output_map {{ key: "{graph.output[0].name}" value: "{gives}" }}'
    return f'  step {{ model_name: "{model}" model_version: -1 {maps} }}'
