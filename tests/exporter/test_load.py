from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.errors import BadModel, ExportError
from exporter.load import load_onnx
from exporter.sources import open_sources
from tests.exporter.graphs import Net


def test_a_missing_file_and_one_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "notes.onnx").write_text("hello")
    with pytest.raises(BadModel, match="no such file"):
        open_sources(None, {"p": tmp_path / "missing.onnx"})
    with pytest.raises(BadModel, match="neither an ONNX model"):
        open_sources(None, {"p": tmp_path / "notes.txt"})
    with pytest.raises(BadModel, match="not an ONNX model"):
        load_onnx(tmp_path / "notes.onnx")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.data())
def test_truncated_and_mutated_files_give_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(Net(blocks=(1,)).proto().SerializeToString())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ExportError):  # anything else is a failure
        load_onnx(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = Net(blocks=(1,)).save(tmp_path / "inside" / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_onnx(path)
    proto = onnx.load(path, load_external_data=False)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inside" / "weights.bin").read_bytes())
    for location in ("../weights.bin", str(tmp_path / "weights.bin")):
        for tensor in proto.graph.initializer:
            tensor.external_data[0].value = location
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(BadModel, match="outside its own folder"):
            load_onnx(path)


def test_a_newer_opset_is_refused(tmp_path: Path) -> None:
    proto = Net(blocks=(1,)).proto()
    proto.opset_import[0].version = 22
    (tmp_path / "new.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(BadModel, match=r"opset 22.*opset 21 or lower"):
        load_onnx(tmp_path / "new.onnx")


def test_a_checkpoint_needs_a_backbone(tmp_path: Path) -> None:
    (tmp_path / "p.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match="--backbone"):
        open_sources(None, {"p": tmp_path / "p.safetensors"})
    with pytest.raises(ExportError, match="a name or a backbone file"):
        open_sources("backbone.onnx", {"p": tmp_path / "p.safetensors"})
