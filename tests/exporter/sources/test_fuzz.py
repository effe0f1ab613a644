"""Damaged ONNX files: no crash, no hang, no traceback; an ExportError of one sentence, or a model that splits."""

from __future__ import annotations

import resource
from pathlib import Path
from random import Random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import ExportError, RefusedModel, UnsupportedModel
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import MAX_NODES, _run, analyse, examine, limited_memory, try_in_sandbox
from tests import forked
from tests.exporter.graphs import Net
from tests.exporter.sources.mutations import mutated

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

CONTENT = Net(blocks=(1,)).proto().SerializeToString()
# The seeds of one example go through one process: starting it takes a second, a model a few milliseconds.
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=100, max_size=100, unique=True)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=2)
@given(seeds=SEEDS)
def test_damaged_models_are_refused_in_one_sentence_or_split(tmp_path: Path, seeds: list[int]) -> None:
    files = [tmp_path / f"{seed}.onnx" for seed in seeds]
    for file, seed in zip(files, seeds, strict=True):
        file.write_bytes(mutated(CONTENT, Random(seed)))
    for file, error in zip(files, examine(files), strict=True):
        if not isinstance(error, ExportError):
            assert analyse(file.stem, load_onnx(file))[1].blocks
        else:
            sentence = str(error)
            assert sentence.startswith(f"{file}: ")
            assert "\n" not in sentence
            assert "cannot be read (" not in sentence  # a traceback there


def _two_outputs_too_many(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Split", ["flat"], ["one", "two", "three"], axis=1, num_outputs=2)
    proto.graph.node.insert(len(proto.graph.node) - 1, node)


def _damaged_and_sound(folder: Path) -> tuple[Path, Path]:
    damaged, sound = folder / "damaged.onnx", folder / "sound.onnx"
    proto = Net(blocks=(1,)).proto()
    _two_outputs_too_many(proto)
    damaged.write_bytes(proto.SerializeToString())
    sound.write_bytes(CONTENT)
    return damaged, sound


def test_a_forked_process_answers_as_a_fresh_one(tmp_path: Path) -> None:
    """So other tests may use it."""
    damaged, sound = _damaged_and_sound(tmp_path)
    fresh, forked_ = (
        [(run.returncode, run.stdout) for run in map(each, ([sound, damaged], [sound]))] for each in (_run, forked.run)
    )
    assert fresh == forked_ == [(-6, "null\n"), (0, "null\n")]


def test_a_model_that_crashes_the_library_is_refused(tmp_path: Path) -> None:
    damaged, sound = _damaged_and_sound(tmp_path)
    answers = list(examine([damaged, sound]))
    assert isinstance(answers[0], ExportError)
    assert "damaged.onnx: crashes the ONNX library that reads it (SIGABRT)" in str(answers[0])
    assert answers[1] == ()


@pytest.mark.slow
def test_what_is_refused_is_refused_in_the_same_words(tmp_path: Path) -> None:
    proto = Net(blocks=(1,)).proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    path = tmp_path / "a name\nof two lines.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(RefusedModel, match="the batch size is fixed to 2"):
        try_in_sandbox([path])
    with pytest.raises(UnsupportedModel, match="net: the batch size is fixed to 2"):
        analyse("net", load_onnx(path))


def test_what_a_library_raises_is_kept_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object, known: object = None, check: object = None) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("exporter.sources.sandbox.canonicalise", fail)
    with pytest.raises(UnsupportedModel, match=r"^net: its graph cannot be analysed \(list index out of range\)\.$") as caught:
        analyse("net", Net(blocks=(1,)).model())
    assert isinstance(caught.value.__cause__, IndexError)


def _calling(depth: int, calls_itself: bool = False) -> onnx.ModelProto:
    """A model whose function at each level calls the one below twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(depth):
        below = f"F{level - 1}" if level else "F0" if calls_itself else "Relu"
        domain = "local" if level or calls_itself else ""
        body = [helper.make_node(below, ["x"], ["y"], domain=domain), helper.make_node(below, ["y"], ["z"], domain=domain)]
        functions.append(helper.make_function("local", f"F{level}", ["x"], ["z"], body, opsets))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph([helper.make_node(f"F{depth - 1}", ["image"], ["logits"], domain="local")], "g", [image], [logits])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (_calling(40), f"come to more than {MAX_NODES:,} nodes"),
        (_calling(1, calls_itself=True), "its function 'F0' calls itself"),
    ],
)
def test_functions_that_call_functions_without_end(proto: onnx.ModelProto, words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        analyse("net", ir.from_proto(proto))


def test_functions_are_inlined_otherwise(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(_calling(3).SerializeToString())
    assert analyse("net", load_onnx(tmp_path / "net.onnx"))[0].graph.num_nodes() == 8


def test_constants_of_absurd_size_are_not_computed(tmp_path: Path) -> None:
    proto = Net(blocks=(1,)).proto()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "shape"))
    proto.graph.node.insert(0, helper.make_node("Expand", ["scale", "shape"], ["huge"]))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedModel, match="'huge' is larger than any"):
        analyse("net", load_onnx(tmp_path / "net.onnx"))


def test_memory_is_limited_and_freed_again() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limited_memory(2**26), pytest.raises(MemoryError):
        np.ones(2**27)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert np.ones(2**20).sum() == 2**20


def test_what_the_runtime_cannot_run_is_one_sentence() -> None:
    proto = Net(blocks=(1,)).proto()
    proto.graph.node[4].domain = "nowhere"
    proto.opset_import.append(helper.make_opsetid("nowhere", 1))
    with pytest.raises(ExportError, match=r"^ONNX Runtime cannot run the model \(.*\)\.$"):
        open_session(ir.from_proto(proto))
