"""A small family of real networks that take texts, of eight tokens or of any length: ONNX segments, and the same arithmetic in numpy.

ids, mask -> bag (the mean of the words) -+-> mood (3 classes, with labels)
                                          +-> topic (4)
                                          +-> shout (2; by a tokenizer of its own, that knows fewer words)
          -> each (the words themselves)  ---> words (2 numbers for each token)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository.free_sizes import FreeSize
from contract.repository.write import model_path, write_configs
from contract.text import TextInput, Tokenizer
from tests import words

WIDTH, MOST = 6, 8
SIZES = {"length": FreeSize(4, 1, MOST)}
IDS, MASK = "input_ids", "attention_mask"
HEADS = {"mood": 3, "topic": 4, "shout": 2}
LABELS = {"mood": ("calm", "cross", "glad")}
USUAL = words.tokenizer().to_str().encode()
FEW = words.tokenizer(words.WORDS[:3]).to_str().encode()


def weight(name: str, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(map(ord, name))).normal(size=shape).astype(np.float32)


def tokenizer_of(task: str) -> bytes:
    return FEW if task == "shout" else USUAL


def answers(task: str, ids: NDArray[Any]) -> NDArray[Any]:
    """Return what `task` answers to the ids of one text."""
    return weight("table", len(words.SPECIAL) + len(words.WORDS), WIDTH)[ids].mean(axis=0) @ weight(task, WIDTH, HEADS[task])


def ids_of(task: str, text: str) -> NDArray[Any]:
    encoded = Tokenizer(tokenizer_of(task)).encode([text], TextInput("", "ids", most=MOST), cut=True)
    return encoded.rows[0].inputs["ids"][0]


def write_repository(folder: Path, *, free: bool = False) -> Repository:
    """Write the family into `folder`. free: the networks take any length."""
    segments = {name: _segment(name, free) for name in ("bag", "each", *(f"to-{task}" for task in (*HEADS, "words")))}
    for name in segments:
        onnx.save(_model(segments[name]), model_path(folder, name))
    tasks = {task.name: task for task in (*(_classifier(name, free) for name in HEADS), _tagger(free))}
    contents = {Tokenizer(content).sha256: content for content in (USUAL, FEW)}
    return write_configs(folder, segments, tasks, tokenizers=contents)


def _classifier(name: str, free: bool) -> Task:
    output = TensorSpec(name, "FP32", (HEADS[name],))
    steps = Step("bag", (IDS, MASK), ("bag of words",)), Step(f"to-{name}", ("bag of words",), (name,))
    text = TextInput(Tokenizer(tokenizer_of(name)).sha256, IDS, MASK, least=1 if free else MOST, most=MOST)
    labels, sizes = LABELS.get(name, ()), SIZES if free else {}
    return Task(name, steps, _inputs(free), (output,), 6, labels, sizes=sizes, scores="logits", text=text)


def _tagger(free: bool) -> Task:
    output = replace(_spec(("length", 2), free), name="words")
    steps = Step("each", (IDS,), ("each word",)), Step("to-words", ("each word",), ("words",))
    return Task("words", steps, _inputs(free), (output,), 6, sizes=SIZES if free else {}, text=_classifier("mood", free).text)


def _inputs(free: bool) -> tuple[TensorSpec, ...]:
    return tuple(replace(_spec(("length",), free), name=name, dtype="INT64") for name in (IDS, MASK))


def _segment(name: str, free: bool) -> Segment:
    takes = {"bag": _inputs(free), "each": _inputs(free)[:1], "to-words": (_spec(("length", WIDTH), free),)}.get(
        name, (_spec((WIDTH,), free),)
    )
    gives = {"bag": (WIDTH,), "each": ("length", WIDTH), "to-words": ("length", 2)}.get(name) or (HEADS[name[3:]],)
    inputs = tuple(replace(spec, name="input" if index == 0 else f"input_{index}") for index, spec in enumerate(takes))
    outputs = (replace(_spec(gives, free), name="output"),)
    sizes = SIZES if any(-1 in spec.shape for spec in (*inputs, *outputs)) else {}
    block = 0 if name in ("bag", "each") else 1
    digest = f"{sum(map(ord, name)):064x}"
    return Segment(name, inputs, outputs, (block, block), digest, 6, macs=1, rows="independent", sizes=sizes)


def _spec(sizes: tuple[str | int, ...], free: bool) -> TensorSpec:
    fixed = tuple(MOST if size == "length" and not free else size for size in sizes)
    shape = tuple(-1 if isinstance(size, str) else size for size in fixed)
    axes = tuple(size if isinstance(size, str) else "" for size in fixed)
    return TensorSpec("input", "FP32", shape, axes=axes if -1 in shape else ())


def _model(segment: Segment) -> onnx.ModelProto:
    table = weight("table", len(words.SPECIAL) + len(words.WORDS), WIDTH)
    nodes, weights = {
        "bag": (_BAG, {"table": table, "last": np.array([-1]), "second": np.array([1])}),
        "each": ([helper.make_node("Gather", ["table", "input"], ["output"])], {"table": table}),
    }.get(segment.name) or (
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        {"weight": weight(segment.name[3:], WIDTH, HEADS.get(segment.name[3:], 2))},
    )
    inputs, outputs = (list(map(_value, specs)) for specs in (segment.inputs, segment.outputs))
    named = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, segment.name, inputs, outputs, named)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    dtype = TensorProto.INT64 if spec.dtype == "INT64" else TensorProto.FLOAT
    sizes = [name or size for name, size in zip(spec.axes or ("",) * len(spec.shape), spec.shape, strict=True)]
    return helper.make_tensor_value_info(spec.name, dtype, ["rows", *sizes])


_BAG = [
    helper.make_node("Gather", ["table", "input"], ["words"]),
    helper.make_node("Cast", ["input_1"], ["mask"], to=TensorProto.FLOAT),
    helper.make_node("Unsqueeze", ["mask", "last"], ["tall"]),
    helper.make_node("Mul", ["words", "tall"], ["kept"]),
    helper.make_node("ReduceSum", ["kept", "second"], ["sum"], keepdims=0),
    helper.make_node("ReduceSum", ["mask", "second"], ["count"]),
    helper.make_node("Div", ["sum", "count"], ["output"]),
]
