"""Published weights that cannot be had are refused in seconds, in one sentence, before a library begins to ask."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torchvision
from huggingface_hub import constants

from tuning.errors import WeightsUnavailable
from tuning.network import libraries
from tuning.network.backbone import load_backbone

NAME = "resnet18.a1_in1k"


@pytest.fixture(autouse=True)
def _no_library_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(timm, "create_model", ask)
    monkeypatch.setattr(torchvision.models, "get_model", ask)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed() -> str:
    """The address of a port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], closed: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    with pytest.raises(
        WeightsUnavailable, match=rf"{closed} cannot be reached \(.*refused.*\); give weights from a file, as {NAME}@FILE, or"
    ):
        load_backbone(NAME)
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_OBSTACLE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsUnavailable, match=r"cannot be reached \(no answer within 0\.2 seconds\)"):
            load_backbone(NAME)


def test_torchvision_is_named_whole(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{closed}/resnet18-1234.pth"))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    with pytest.raises(WeightsUnavailable, match=r"cannot be reached .* as torchvision/resnet18@FILE"):
        load_backbone("torchvision/resnet18")


def test_weights_that_are_here_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    files = ("torch/hub/checkpoints/resnet18-1234.pth", f"hub/models--timm--{NAME}/snapshots/1234/model.safetensors")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    reference = tmp_path / "hub" / f"models--timm--{NAME}" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("1234")
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{closed}/resnet18-1234.pth"))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    assert libraries.find_obstacle("timm", NAME) == ""
    assert libraries.find_obstacle("torchvision", "resnet18") == ""
