from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import BadModel, ExportError
from exporter.open_models import open_sources
from exporter.sources.references import find_tasks, parse_reference
from exporter.sources.task_model import read_labels
from tests.exporter.graphs import Net

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("forked_preflight"),
]  # as a whole: the fast part of the suite is to stay under a minute


@pytest.mark.parametrize(
    ("text", "network", "file", "is_callable"),
    [
        ("resnet50.a1_in1k", "resnet50.a1_in1k", None, False),
        ("torchvision/resnet50", "torchvision/resnet50", None, False),
        ("timm/resnet50", "timm/resnet50", None, False),
        ("resnet50@a.pth", "resnet50", "a.pth", False),
        ("torchvision/resnet50@sub/b.safetensors", "torchvision/resnet50", "sub/b.safetensors", False),
        ("package.module:Class.make", "package.module:Class.make", None, True),
        ("package.module:make@a.pth", "package.module:make", "a.pth", True),
        ("a.pth", "", "a.pth", False),
        ("best.pth.tar", "", "best.pth.tar", False),
        ("resnet50@best.pth.tar", "resnet50", "best.pth.tar", False),
        ("odd@name:with.onnx", "", "odd@name:with.onnx", False),
        ("adapter", "", "adapter", False),
        ("resnet50@adapter", "resnet50", "adapter", False),
        ("sub", "sub", None, False),  # a folder of a network's name is not that network
    ],
)
def test_what_a_reference_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, network: str, file: str | None, is_callable: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("adapter").mkdir()
    for name in ("adapter/adapter_config.json", "best.pth.tar", "a.pth", "sub/b.safetensors", "odd@name:with.onnx"):
        Path(name).write_bytes(b"content")
    reference = parse_reference(text)
    assert (reference.network, reference.file, reference.is_callable) == (network, Path(file) if file else None, is_callable)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("missing.onnx", "no such file"),
        ("./resnet50", "no such file"),
        ("folder/resnet50", "no such file"),
        ("resnet50@missing.pth", "missing.pth: there is no such file"),
        ("resnet50@net.onnx", "net.onnx: is not a checkpoint"),
        ("notes.txt", "neither an ONNX model"),
        ("empty.pth", "the file is empty"),
        ("./folder", "is a folder"),
        ("resnet50@", r"is a folder"),
    ],
)
def test_what_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty.pth").touch()
    for name in ("notes.txt", "net.onnx"):
        Path(name).write_text("hello")
    with pytest.raises(BadModel, match=words):
        parse_reference(text)


@given(st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    with contextlib.suppress(BadModel):
        reference = parse_reference(text)
        assert reference.network or reference.file


def test_a_folder_of_task_models(tmp_path: Path) -> None:
    for name in ("pets.onnx", "flowers.pth", "cars.safetensors", "base.safetensors", "birds.pt"):
        (tmp_path / name).write_bytes(b"content")
    for name in ("README.md", "pets.labels.txt", "pets.onnx.data", "weights.bin", ".hidden.onnx"):
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "folder.onnx").mkdir()
    found = find_tasks(tmp_path, str(tmp_path / "." / "base.safetensors"))
    assert list(found.items()) == [
        (name, tmp_path / file)
        for name, file in [("birds", "birds.pt"), ("cars", "cars.safetensors"), ("flowers", "flowers.pth"), ("pets", "pets.onnx")]
    ]
    (tmp_path / "pets.pth.tar").write_bytes(b"content")
    with pytest.raises(BadModel, match=r"holds both pets\.onnx and pets\.pth\.tar"):
        find_tasks(tmp_path)


def test_weights_of_every_kind_are_tasks_in_a_folder(tmp_path: Path) -> None:
    kinds = (".pth.tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors")
    files = {f"task{index}": tmp_path / f"task{index}{kind}" for index, kind in enumerate(kinds)}
    for file in files.values():
        file.write_bytes(b"content")
    assert find_tasks(tmp_path) == files
    (tmp_path / "task0.labels.txt").write_text("cat\ndog\n")
    assert read_labels("pets", files["task0"]) == ("cat", "dog")


def test_a_folder_without_task_models(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(BadModel, match="holds no task model"):
        find_tasks(tmp_path)
    with pytest.raises(BadModel, match="no such folder"):
        find_tasks(tmp_path / "missing")


def test_labels_lie_beside_the_model(tmp_path: Path) -> None:
    model = tmp_path / "net.v2.onnx"
    assert read_labels("pets", model) == ()
    (tmp_path / "net.v2.labels.txt").write_text("cat\ndog\n\n")
    assert read_labels("pets", model) == ("cat", "dog")
    (tmp_path / "pets.labels.txt").write_bytes("\ufeffkäfer \r\nhund".encode())
    assert read_labels("pets", model) == ("käfer", "hund")


@pytest.mark.parametrize(
    ("content", "words"), [(b"cat\n\ndog\n", "line 2 is blank"), (b"\xff\xfe", "UTF-8"), (b" \n", "the file is empty")]
)
def test_labels_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "pets.labels.txt").write_bytes(content)
    with pytest.raises(BadModel, match=words):
        read_labels("pets", tmp_path / "net.onnx")


def test_onnx_tasks_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = Net(blocks=(1,), classes=2).save(tmp_path / "net.onnx")
    (tmp_path / "net.labels.txt").write_text("cat\ndog")
    sources = open_sources(path, {"pets": path})
    path.unlink()
    with pytest.raises(BadModel, match="no such file"):
        sources.tasks["pets"]()
    Net(blocks=(1,), classes=2).save(path)
    model = sources.tasks["pets"]()
    assert (model.labels, model.preprocessing, model.provenance) == (("cat", "dog"), None, {"file": "net.onnx"})
    assert sources.backbone is not None
    assert len(sources.backbone().model.graph.outputs) == 1


def test_a_bad_model_is_refused_before_any_is_loaded(tmp_path: Path) -> None:
    good = Net(blocks=(1,)).save(tmp_path / "good.onnx")
    proto = Net(blocks=(1,)).proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match=r"bad\.onnx: the batch size is fixed to 2"):
        open_sources(None, {"good": good, "bad": tmp_path / "bad.onnx"})
