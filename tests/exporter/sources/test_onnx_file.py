from __future__ import annotations

import gc
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from contract.repository.rows import relative_error
from exporter.errors import BadModel, NonFiniteWeights, UnsupportedModel
from exporter.sources.assumed import assumed
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import analyse
from tests.exporter.graphs import SIZE, Net
from tests.exporter.sources.strangers import save, stranger

NET = Net(blocks=(1,))


def write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def with_external_data(folder: Path, location: str = "weights.bin") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "net.onnx"
    (folder / location).parent.mkdir(exist_ok=True)
    onnx.save(NET.proto(), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def point_to(path: Path, **entries: str) -> Path:
    """Rewrite the external data entries of all weights of the model at `path`."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in kept.items())
    return write(path, proto)


def weights_of(model: ir.Model) -> dict[str, bytes]:
    return {
        name: value.const_value.tobytes() for name, value in model.graph.initializers.items() if value.const_value is not None
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.onnx", None, "no such file"),
        ("empty.onnx", b"", "the file is empty"),
        ("notes.onnx", b"hello", "is not an ONNX model, or is truncated"),
        ("truncated.onnx", NET.proto().SerializeToString()[:-9], "is not an ONNX model, or is truncated"),
    ],
)
def test_what_is_no_model_says_so(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadModel, match=words):
        load_onnx(tmp_path / name)


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="is a folder"):
        load_onnx(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = NET.save(tmp_path / "net.onnx")
    path.chmod(0)
    with pytest.raises(BadModel, match="cannot be read"):
        load_onnx(path)


def test_a_file_over_the_limit_of_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no space
    with pytest.raises(BadModel, match=r"larger than 2 GB.*external data"):
        load_onnx(path)


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_an_opset_that_does_not_run(tmp_path: Path, opset: int) -> None:
    proto = NET.proto()
    proto.opset_import[0].version = opset
    with pytest.raises(BadModel, match=rf"uses opset {opset}; export it with an opset from 7 to 21"):
        load_onnx(write(tmp_path / "net.onnx", proto))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 19, 21])
def test_an_opset_that_runs_splits_alike(tmp_path: Path, opset: int) -> None:
    proto = NET.proto()
    proto.opset_import[0].version = opset
    chain = analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))[1]
    assert len(chain.blocks) == len(analyse("net", NET.model())[1].blocks)


def test_external_data_is_read_whole(tmp_path: Path) -> None:
    inside, below = with_external_data(tmp_path / "a"), with_external_data(tmp_path / "b", "data/weights.bin")
    assert weights_of(load_onnx(inside)) == weights_of(load_onnx(below)) == weights_of(NET.model())


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "{root}/weights.bin", "data/../../weights.bin", "data/../weights.bin", "..\\weights.bin", ".", ""],
)
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = with_external_data(tmp_path / "inside")
    (tmp_path / "inside" / "data").mkdir()
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inside" / "weights.bin").read_bytes())
    with pytest.raises(BadModel, match=r"outside the model's own folder .*put them beside the model\.$"):
        load_onnx(point_to(path, location=location.format(root=tmp_path)))


@pytest.mark.parametrize("linked", ["file", "inner file", "folder", "hard"])
def test_links_are_not_followed(tmp_path: Path, linked: str) -> None:
    path = with_external_data(tmp_path / "inside", "data/weights.bin")
    data = tmp_path / "inside" / "data"
    if linked == "folder":
        data.rename(tmp_path / "elsewhere")
        data.symlink_to(tmp_path / "elsewhere")
    elif linked == "hard":
        (tmp_path / "second name").hardlink_to(data / "weights.bin")
    else:
        target = (tmp_path if linked == "file" else data) / "target.bin"
        (data / "weights.bin").rename(target)
        (data / "weights.bin").symlink_to(target)
    with pytest.raises(BadModel, match=r"behind the (hard )?link 'data/weights.bin'"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "gone.bin"}, "are missing: there is no file 'gone.bin'"),
        ({"location": "w" * 300}, "are missing"),
        ({"location": "a\0b"}, "are missing"),
        ({"offset": "1000000"}, "truncated or belongs to another model"),
        ({"offset": "-8"}, "truncated or belongs to another model"),
        ({"offset": "9" * 30}, "truncated or belongs to another model"),
        ({"offset": "first"}, "names no number"),
        ({"length": "1"}, "has 1 bytes where its shape and dtype demand"),
    ],
)
def test_damaged_references_to_external_data(tmp_path: Path, entries: dict[str, str], words: str) -> None:
    with pytest.raises(BadModel, match=words):
        load_onnx(point_to(with_external_data(tmp_path / "inside"), **entries))


def test_a_truncated_file_of_external_data(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "inside")
    (tmp_path / "inside" / "weights.bin").write_bytes(b"\0" * 20)
    with pytest.raises(BadModel, match="which has 20; the file is truncated"):
        load_onnx(path)


def _with_constant(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["constant"], value=tensor))


def _with_subgraph(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", [tensor.name], ["inner"])], "branch", [], [output], [tensor])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    proto.graph.node.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch))


def _with_function(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=tensor)]
    proto.functions.append(helper.make_function("local", "F", [], ["y"], body, [helper.make_opsetid("", 18)]))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.graph.node.append(helper.make_node("F", [], ["called"], domain="local"))


@pytest.mark.parametrize("put", [_with_constant, _with_subgraph, _with_function])
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
def test_hidden_tensors_are_held_to_the_same(tmp_path: Path, put, location: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    proto = NET.proto()
    put(proto, tensor)
    path = write(tmp_path / "inside" / "net.onnx", proto)
    if location == "weights.bin":
        assert load_onnx(path).graph.num_nodes() == len(proto.graph.node)
    else:
        with pytest.raises(BadModel, match=r"'hidden' are kept outside the model's own folder"):
            load_onnx(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.dims.append(7), "bytes where its shape and dtype demand"),
        (lambda tensor: tensor.dims.__setitem__(0, -4), "negative size"),
        (lambda tensor: tensor.dims.__setitem__(0, 2**62), "bytes where its shape and dtype demand"),
        (lambda tensor: setattr(tensor, "data_type", TensorProto.DOUBLE), "bytes where its shape and dtype demand"),
        (lambda tensor: setattr(tensor, "data_type", 99), "unknown dtype"),
        (lambda tensor: tensor.ClearField("raw_data"), "has 0 values"),
    ],
)
def test_weights_that_are_not_what_they_claim(tmp_path: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    proto = NET.proto()
    change(next(tensor for tensor in proto.graph.initializer if tensor.name == "stem.weight"))
    with pytest.raises(BadModel, match=f"the tensor 'stem.weight' .*{words}"):
        load_onnx(write(tmp_path / "net.onnx", proto))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("external", [False, True])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float, external: bool) -> None:
    proto = NET.proto()
    index = [tensor.name for tensor in proto.graph.initializer].index("0.left")
    array = numpy_helper.to_array(proto.graph.initializer[index]).copy()
    array.flat[5] = value
    proto.graph.initializer[index].CopyFrom(numpy_helper.from_array(array, "0.left"))
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    with pytest.raises(NonFiniteWeights, match=r"net\.onnx: the tensor '0.left' holds NaN or infinite values"):
        load_onnx(path)


def test_a_mask_of_zeros_and_infinities_is_no_damaged_weight(tmp_path: Path) -> None:
    proto = NET.proto()
    proto.graph.initializer.append(numpy_helper.from_array(np.triu(np.full((4, 4), -np.inf, np.float32), 1), "mask"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(-np.inf), "masked"))
    assert "mask" in load_onnx(write(tmp_path / "net.onnx", proto)).graph.initializers


@pytest.mark.parametrize(
    ("text", "words"), [(b"weights.bin", "in a file whose name is not UTF-8"), (b"0.left", "has a name that is not")]
)
def test_names_that_are_no_text(tmp_path: Path, text: bytes, words: str) -> None:
    path = with_external_data(tmp_path)
    path.write_bytes(path.read_bytes().replace(text, b"\xff" + text[1:]))
    with pytest.raises(BadModel, match=words):
        load_onnx(path)


@pytest.mark.parametrize("words", [[], ["cat", "dog"]])
def test_strings_are_no_weights(tmp_path: Path, words: list[str]) -> None:
    proto = NET.proto()
    proto.graph.initializer.append(helper.make_tensor("classes", TensorProto.STRING, [len(words)], words))
    assert "classes" in load_onnx(write(tmp_path / "net.onnx", proto)).graph.initializers


def test_a_cycle_is_named(tmp_path: Path) -> None:
    proto = NET.proto()
    relu = next(node for node in proto.graph.node if node.name == "node_stem_relu")
    relu.input[0] = "0.out"
    with pytest.raises(BadModel, match=r"its graph has a cycle through .*the Relu node"):
        load_onnx(write(tmp_path / "net.onnx", proto))


def test_an_input_from_nowhere_is_named(tmp_path: Path) -> None:
    proto = NET.proto()
    del proto.graph.initializer[1]
    with pytest.raises(BadModel, match=r"the Conv node 'node_stem' reads 'stem.weight', which nothing produces"):
        load_onnx(write(tmp_path / "net.onnx", proto))


def test_an_invalid_node_gets_the_checkers_words(tmp_path: Path) -> None:
    proto = NET.proto()
    proto.graph.node[0].attribute[0].name = "nonsense"
    with pytest.raises(BadModel, match=r"is not a valid ONNX model \(.*nonsense"):
        load_onnx(write(tmp_path / "net.onnx", proto))


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    proto = NET.proto()
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4])
    )
    with pytest.raises(BadModel, match="sparse"):
        load_onnx(write(tmp_path / "net.onnx", proto))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(order=st.permutations(range(len(NET.proto().graph.node))))
def test_the_order_of_nodes_does_not_matter(tmp_path: Path, order: list[int]) -> None:
    proto = NET.proto()
    nodes = list(NET.proto().graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[index] for index in order)
    chain = analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))[1]
    assert [block.digest for block in chain.blocks] == [block.digest for block in analyse("net", NET.model())[1].blocks]


def test_a_model_without_weights_is_fine(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph([helper.make_node("Softmax", ["image"], ["logits"])], "net", [image], [logits])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert not analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))[1].blocks[0].parameters


@pytest.mark.parametrize("external", [False, True])
def test_loading_computes_the_same_and_copies_each_weight_once(tmp_path: Path, external: bool) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    proto = NET.proto()
    size = 8_000_000
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(size // 4, np.float32), "unused"))
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    expected = open_session(path).run(None, {"image": rows})[0]
    del proto
    tracemalloc.start()
    model = load_onnx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * size  # the message itself, another copy if the weights are in it, is beyond tracemalloc
    assert relative_error(open_session(model).run(None, {"image": rows})[0], expected) == 0


@pytest.mark.parametrize(("ir_version", "words"), [(3, ()), (8, ("lists 6 of its weights as inputs, too, ",))])
def test_weights_that_are_inputs_too_are_constants(tmp_path: Path, ir_version: int, words: tuple[str, ...]) -> None:
    proto = NET.proto()
    expected = analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))[1]
    proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in proto.graph.initializer
    )
    proto.ir_version = ir_version
    model = load_onnx(write(tmp_path / "net.onnx", proto))
    assert [value.name for value in model.graph.inputs] == ["image"]
    assert tuple(sentence[: len(words[0])] for sentence in assumed(model)) == words
    assert analyse("net", model)[1].blocks == expected.blocks
    assert open_session(model).get_inputs()[0].name == "image"


def test_names_that_say_nothing_are_made_good(tmp_path: Path) -> None:
    proto = NET.proto()
    expected = analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))[1]
    proto.graph.name = ""
    for node in proto.graph.node:
        node.name = "" if node.op_type == "Relu" else "same"
        node.domain = "ai.onnx"
    model = load_onnx(write(tmp_path / "net.onnx", proto))
    assert open_session(model).get_outputs()[0].name == "logits"
    assert analyse("net", model)[1].blocks == expected.blocks


def test_a_number_for_all_rows_is_no_input(tmp_path: Path) -> None:
    proto = NET.proto()
    proto.graph.node[-1].output[0] = "scores"
    proto.graph.node.append(helper.make_node("Mul", ["scores", "temperature"], ["logits"]))
    proto.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, []))
    with pytest.raises(UnsupportedModel, match=r"the input 'temperature' is one number for all rows; make it a constant, or"):
        analyse("net", load_onnx(write(tmp_path / "net.onnx", proto)))


def test_a_file_that_was_optimised_for_one_processor_is_refused(tmp_path: Path) -> None:
    """What ONNX Runtime itself writes with all optimisations, where it knows such operators; there the plainly optimised file is taken."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    path = save(tmp_path, stranger())
    for level in ("EXTENDED", "ALL"):
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    load_onnx(tmp_path / "EXTENDED.onnx")
    proto = onnx.load(tmp_path / "ALL.onnx")
    if not any("nchwc" in node.domain for node in proto.graph.node):  # a processor without its own layout
        proto = stranger(domains=[("com.microsoft.nchwc", 1)])
        proto.graph.node[0].domain = "com.microsoft.nchwc"
    words = r"net.onnx: was optimised by ONNX Runtime for the processor of one machine \(com.microsoft.nchwc.Conv\), and others may answer"
    with pytest.raises(BadModel, match=words):
        load_onnx(write(tmp_path / "net.onnx", proto))


def test_what_is_kept_of_a_model_keeps_no_weight_that_has_been_let_go(tmp_path: Path) -> None:
    proto = NET.proto()
    size = 64_000_000
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(size // 4, np.float32), "unused"))
    onnx.save(proto, tmp_path / "net.onnx")
    del proto
    gc.collect()
    before = _resident()
    model = load_onnx(tmp_path / "net.onnx")
    kept = [value.const_value for value in model.graph.initializers.values() if value.name != "unused"]
    del model
    gc.collect()
    assert kept
    assert _resident() - before < size / 2


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
