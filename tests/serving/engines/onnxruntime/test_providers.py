from __future__ import annotations

import hashlib
from pathlib import Path

import onnxruntime as ort
import pytest
import typer

from espalier.commands.options.sizes import parse_size
from serving.engines.onnxruntime.providers import PROVIDER_CHOICES, choose_providers, provider_works
from serving.engines.onnxruntime.segment_cache import EngineCache
from serving.errors import ProviderUnavailable

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def test_automatic_is_cuda_where_it_works() -> None:
    assert choose_providers("auto", lambda name: name == "cuda") == (CUDA, CPU)
    assert choose_providers("auto", lambda name: name in ("tensorrt", "openvino")) == (CPU,)
    assert choose_providers("tensorrt", lambda name: True)[0] == "TensorrtExecutionProvider"


def test_what_does_not_work_is_refused_with_what_does() -> None:
    with pytest.raises(ProviderUnavailable, match=r"'cuda' does not work here; choose one of: auto, cpu, openvino\."):
        choose_providers("cuda", lambda name: name == "openvino")
    with pytest.raises(ProviderUnavailable, match=r"'gpu' does not work here; choose one of: auto, cpu, cuda"):
        choose_providers("gpu", lambda name: True)
    with pytest.raises(ProviderUnavailable, match=r"'foo' does not work here; choose one of: auto, cpu\.$"):
        choose_providers("foo", lambda name: False)


@pytest.mark.parametrize("choice", PROVIDER_CHOICES)
def test_what_is_chosen_works_on_this_machine(choice: str, capfd: pytest.CaptureFixture[str]) -> None:
    """On a machine without a GPU this says nothing at all, also with a build of ONNX Runtime that has CUDA."""
    try:
        providers = choose_providers(choice)
    except ProviderUnavailable:
        assert choice not in ("auto", "cpu")
        return
    finally:
        if not provider_works("cuda"):
            assert capfd.readouterr() == ("", "")
    assert providers[-1] == CPU
    assert set(providers[:1]) <= set(ort.get_available_providers())


def test_the_processor_is_tried_with_a_real_model() -> None:
    assert provider_works("cpu")


def model_in(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)
    return folder / "model.onnx"


def test_engines_of_different_models_are_kept_apart(tmp_path: Path) -> None:
    """TensorRT's provider itself cannot tell networks apart that differ in their weights alone."""
    cache = EngineCache(tmp_path / "cache" / "engines")
    contents = {"a": b"flowers", "b": b"birds", "again": b"flowers"}
    options = {name: dict(cache.options(model_in(tmp_path / name, content))) for name, content in contents.items()}
    assert options["a"] == options["again"]
    for name, content in contents.items():
        folder = tmp_path / "cache" / "engines" / hashlib.sha256(content).hexdigest()
        assert options[name] == {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_fp16_enable": "0",
        }
        assert folder.is_dir()


def test_engines_are_not_kept_where_others_write_or_the_model_is_in_several_files(tmp_path: Path) -> None:
    model = model_in(tmp_path / "a", b"flowers")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert EngineCache(open_to_all).options(model) == {}
    assert EngineCache(model).options(model) == {}  # a file where the folder should be
    (tmp_path / "a" / "weights.bin").write_bytes(b"1")
    assert EngineCache(tmp_path / "engines").options(model) == {}


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("500M", 500_000_000), ("1.5GB", 1_500_000_000), ("2GiB", 2 * 2**30), (" 3 kb ", 3000)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1", "0", "1X", "G", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no amount of memory"):
        parse_size(text)
