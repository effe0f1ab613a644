"""Networks with free sizes, as people have them: texts of any length with a mask, images of any size, and twin towers.

ids, mask -> trunk -+-> head-topic (with the mask)  -> topic   (three numbers)
                    +-> head-tag                    -> tag     (four numbers for each token)
                    +-> head-mean                   -> mean    (takes the mask and does not heed it: padding changes its answers)

image -> image-trunk -+-> head-label   (three numbers)
                      +-> head-map     (two numbers for each pixel)

query, document -> tower (twice) -> head-pair   (one number; the two texts have lengths of their own)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository.free_sizes import FreeSize
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from contract.repository.write import model_path, write_all_tasks, write_models

VOCABULARY, WIDTH, LONGEST, REFERENCE, MAX_ROWS = 50, 8, 64, 16, 6
LENGTH = {"length": FreeSize(REFERENCE, 1, LONGEST)}
SIDES = {"height": FreeSize(8, 3), "width": FreeSize(8, 3)}
LENGTHS = {"query_length": FreeSize(4), "document_length": FreeSize(12)}
IDS = TensorSpec("input_ids", "INT64", (-1,), axes=("length",))
MASK = TensorSpec("attention_mask", "INT64", (-1,), axes=("length",))
IMAGE = TensorSpec("image", "FP32", (3, -1, -1), axes=("", "height", "width"))
STATE = TensorSpec("state", "FP32", (-1, WIDTH), axes=("length", ""))
MAP = TensorSpec("map", "FP32", (4, -1, -1), axes=("", "height", "width"))
VALUES = {"input_ids": (0, VOCABULARY - 1)}
Numbers = NDArray[Any]

_GRAPHS = {
    "trunk": """(int64[N, L] input, int64[N, L] input_1) => (float[N, L, 8] output) {
        words = Gather (table, input)
        shape = Shape <start = 1, end = 2> (input)
        zero = Constant <value_ints = [0]> ()
        first = Slice (places, zero, shape)
        state = Add (words, first)
        turned = Transpose <perm = [0, 2, 1]> (state)
        scores = MatMul (state, turned)
        floats = Cast <to = 1> (input_1)
        one = Constant <value_float = 1.0> ()
        hidden = Sub (one, floats)
        low = Constant <value_float = -1e9> ()
        bias = Mul (hidden, low)
        axis = Constant <value_ints = [1]> ()
        wide = Unsqueeze (bias, axis)
        masked = Add (scores, wide)
        weights = Softmax <axis = -1> (masked)
        mixed = MatMul (weights, state)
        output = Tanh (mixed)
    }""",
    "head-topic": """(float[N, L, 8] input, int64[N, L] input_1) => (float[N, 3] output) {
        floats = Cast <to = 1> (input_1)
        last = Constant <value_ints = [2]> ()
        axis = Constant <value_ints = [1]> ()
        column = Unsqueeze (floats, last)
        kept = Mul (input, column)
        total = ReduceSum <keepdims = 0> (kept, axis)
        count = ReduceSum <keepdims = 1> (floats, axis)
        one = Constant <value_float = 1.0> ()
        safe = Max (count, one)
        mean = Div (total, safe)
        output = MatMul (mean, weight)
    }""",
    "head-tag": "(float[N, L, 8] input) => (float[N, L, 4] output) { output = MatMul (input, weight) }",
    "head-mean": """(float[N, L, 8] input) => (float[N, 2] output) {
        axis = Constant <value_ints = [1]> ()
        mean = ReduceMean <keepdims = 0> (input, axis)
        output = MatMul (mean, weight)
    }""",
    "image-trunk": """(float[N, 3, H, W] input) => (float[N, 4, H, W] output) {
        made = Conv <pads = [1, 1, 1, 1]> (input, weight)
        output = Tanh (made)
    }""",
    "head-label": """(float[N, 4, H, W] input) => (float[N, 3] output) {
        axes = Constant <value_ints = [2, 3]> ()
        mean = ReduceMean <keepdims = 0> (input, axes)
        output = MatMul (mean, weight)
    }""",
    "head-map": "(float[N, 4, H, W] input) => (float[N, 2, H, W] output) { output = Conv (input, weight) }",
    "tower": """(int64[N, L] input) => (float[N, 8] output) {
        words = Gather (table, input)
        axis = Constant <value_ints = [1]> ()
        mean = ReduceMean <keepdims = 0> (words, axis)
        output = Tanh (mean)
    }""",
    "head-pair": """(float[N, 8] input, float[N, 8] input_1) => (float[N, 1] output) {
        both = Mul (input, input_1)
        output = MatMul (both, weight)
    }""",
}
_WEIGHTS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "trunk": {"table": (VOCABULARY, WIDTH), "places": (LONGEST, WIDTH)},
    "head-topic": {"weight": (WIDTH, 3)},
    "head-tag": {"weight": (WIDTH, 4)},
    "head-mean": {"weight": (WIDTH, 2)},
    "image-trunk": {"weight": (4, 3, 3, 3)},
    "head-label": {"weight": (4, 3)},
    "head-map": {"weight": (2, 4, 1, 1)},
    "tower": {"table": (VOCABULARY, WIDTH)},
    "head-pair": {"weight": (WIDTH, 1)},
}


def _vector(size: int) -> TensorSpec:
    return TensorSpec("vector", "FP32", (size,))


_TENSORS: Mapping[str, tuple[tuple[TensorSpec, ...], TensorSpec, Mapping[str, FreeSize]]] = {
    "trunk": ((IDS, MASK), STATE, LENGTH),
    "head-topic": ((STATE, MASK), _vector(3), LENGTH),
    "head-tag": ((STATE,), TensorSpec("tags", "FP32", (-1, 4), axes=("length", "")), LENGTH),
    "head-mean": ((STATE,), _vector(2), LENGTH),
    "image-trunk": ((IMAGE,), MAP, SIDES),
    "head-label": ((MAP,), _vector(3), SIDES),
    "head-map": ((MAP,), TensorSpec("map", "FP32", (2, -1, -1), axes=("", "height", "width")), SIDES),
    "tower": ((IDS,), _vector(WIDTH), LENGTH),
    "head-pair": ((_vector(WIDTH), _vector(WIDTH)), _vector(1), {}),
}
TEXT, IMAGES, TWINS = ("topic", "tag", "mean"), ("label", "map"), ("pair",)


def weights(segment: str) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(len(segment))
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in _WEIGHTS[segment].items()}


def make_segment(name: str) -> Segment:
    inputs, output, sizes = _TENSORS[name]
    return Segment(
        name=name,
        inputs=tuple(replace(spec, name=segment_tensor(SEGMENT_INPUT, place)) for place, spec in enumerate(inputs)),
        outputs=(replace(output, name=SEGMENT_OUTPUT),),
        blocks=(0, 0),
        digest=f"{list(_TENSORS).index(name):064x}",
        max_batch_rows=MAX_ROWS,
        macs=1000,
        rows="independent",
        sizes=sizes,
    )


def make_model(name: str) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> net {_GRAPHS[name]}')
    model.graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in weights(name).items())
    return model


def renamed(task: Task, name: str) -> Task:
    """Return the same task with another name."""
    last = replace(task.steps[-1], outputs=(name,))
    return replace(task, name=name, steps=(*task.steps[:-1], last), outputs=(replace(task.outputs[0], name=name),))


def make_task(name: str) -> Task:
    if name in TEXT:
        taken = ("state", MASK.name) if name == "topic" else ("state",)
        steps = (Step("trunk", (IDS.name, MASK.name), ("state",)), Step(f"head-{name}", taken, (name,)))
        inputs, sizes = (IDS, MASK), LENGTH
    elif name in IMAGES:
        steps = (Step("image-trunk", (IMAGE.name,), ("pixels",)), Step(f"head-{name}", ("pixels",), (name,)))
        inputs, sizes = (IMAGE,), SIDES
    else:
        steps = (
            Step("tower", ("query",), ("of query",)),
            Step("tower", ("document",), ("of document",)),
            Step("head-pair", ("of query", "of document"), (name,)),
        )
        inputs = tuple(TensorSpec(text, "INT64", (-1,), axes=(f"{text}_length",)) for text in ("query", "document"))
        sizes = LENGTHS
    output = replace(_TENSORS[f"head-{name}"][1], name=name)
    values = {"query": (0, VOCABULARY - 1), "document": (0, VOCABULARY - 1)} if name in TWINS else VALUES if name in TEXT else {}
    return Task(name, steps, inputs, (output,), MAX_ROWS, provenance={"made": "by hand"}, sizes=sizes, values=values)


def write_free(path: Path, names: Sequence[str] = TEXT, tasks: Mapping[str, Task] | None = None) -> Repository:
    """Write these tasks, of one kind, as a model repository. tasks: in place of those of `make_task`."""
    made = {name: make_task(name) for name in names} if tasks is None else tasks
    segments = {step.segment: make_segment(step.segment) for task in made.values() for step in task.steps}
    for name in segments:
        onnx.save(make_model(name), model_path(path, name))
    write_models(path, segments, made)
    return write_all_tasks(path, made.values())


def text(rows: int, length: int, seed: int = 0, hidden: int = 0) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of a text task. hidden: so many tokens at the end are masked, in all rows but the first."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, length))
    mask = np.ones((rows, length), np.int64)
    mask[1:, length - hidden :] = 0
    return {IDS.name: ids, MASK.name: mask}


def image(rows: int, height: int, width: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    return {IMAGE.name: np.random.default_rng(seed).normal(size=(rows, 3, height, width)).astype(np.float32)}


def whole(task: str, inputs: Mapping[str, Numbers]) -> Numbers:
    """Return what the task's own network answers."""
    head = weights(f"head-{task}")["weight"]
    if task in TWINS:
        table = weights("tower")["table"]
        query, document = (np.tanh(table[inputs[name]].mean(axis=1)) for name in ("query", "document"))
        return (query * document) @ head
    if task in IMAGES:
        return _of_image(task, inputs[IMAGE.name], head)
    known = weights("trunk")
    ids, mask = inputs[IDS.name], inputs[MASK.name].astype(np.float32)
    state = known["table"][ids] + known["places"][: ids.shape[1]]
    scores = state @ state.transpose(0, 2, 1) + (1 - mask[:, None]) * np.float32(-1e9)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    state = np.tanh(raised / raised.sum(axis=-1, keepdims=True) @ state)
    if task == "topic":
        return (state * mask[..., None]).sum(axis=1) / np.maximum(mask.sum(axis=1, keepdims=True), 1) @ head
    return state.mean(axis=1) @ head if task == "mean" else state @ head


def _of_image(task: str, pixels: Numbers, head: Numbers) -> Numbers:
    kernel = weights("image-trunk")["weight"]
    padded = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    features = np.tanh(np.einsum("nchwij,ocij->nohw", windows, kernel))
    return features.mean(axis=(2, 3)) @ head if task == "label" else np.einsum("nchw,oc->nohw", features, head[:, :, 0, 0])
