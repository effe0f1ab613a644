"""The main job as a user runs it, on a tiny backbone: the demo, and the same steps by hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contract.repository import read_repository
from tests.espalier.test_cli import espalier
from tests.nets import tiny_resnet
from tuning.network.backbone import save_backbone

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]


def succeed(*arguments: str | Path) -> str:
    run = espalier(*arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    # Images are cropped, as with most published weights: what /predict does to a picture is not the identity.
    spec = replace(tiny_resnet().spec, preprocessing=replace(tiny_resnet().spec.preprocessing, crop_fraction=0.9))
    save_backbone(replace(tiny_resnet(), spec=spec), folder / "backbone.safetensors")
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / "data" / name).mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (40, 30), (shade + index,) * 3).save(folder / "data" / name / f"{index}.png")
    (folder / "data" / "dark" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """The steps by hand: tune two tasks, one on images and one on digits, and export them."""
    backbone = ["--backbone", folder / "backbone.safetensors"]
    known = re.findall(r"layer[\d.]+", succeed("tune", "blocks", *backbone))
    for name, data, blocks in (("shade", folder / "data", "none"), ("parity", "digits:parity", known[-1])):
        out = folder / f"{name}.safetensors"
        said = succeed("tune", "fit", *backbone, "--data", data, "--blocks", blocks, "--epochs", "1", "--out", out)
        assert "test_accuracy" in said
        assert ("Left out as damaged or no images: 1 " in said) == (name == "shade")
    tasks = [word for name in ("shade", "parity") for word in ("--task", f"{name}={folder / name}.safetensors")]
    succeed("export", *backbone, *tasks, "--out", folder / "repo")
    return folder / "repo"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-u", "-m", "espalier.cli", "serve", str(repository), "--http-port", "0", "--grpc-port", "0"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(repository.parent / "cache")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    said = []  # the log, too, until it serves or has ended
    for line in process.stdout:
        said.append(line)
        if "Serving on" in line:
            break
    found = re.search(r"http://[\d.:]+", said[-1])
    assert found, said
    yield process, found.group()
    process.kill()
    process.communicate()


def test_what_was_tuned_is_what_is_exported(repository: Path) -> None:
    read = read_repository(repository)
    assert read.tasks["shade"].labels == ("dark", "light")
    assert read.tasks["shade"].steps[0] == read.tasks["parity"].steps[0]
    assert read.tasks["parity"].provenance["backbone_sha256"] == read.tasks["shade"].provenance["backbone_sha256"]


def test_infer_asks_for_some_and_for_all(server: tuple[subprocess.Popen[str], str], folder: Path) -> None:
    image = folder / "data" / "light" / "0.png"
    some = espalier("infer", image, "--url", server[1], "--task", "shade")
    both = espalier("infer", image, "--url", server[1], "--top-k", "1")
    assert some.returncode == both.returncode == 0, some.stderr + both.stderr
    assert "light" in some.stdout
    assert "parity" not in some.stdout
    assert {"shade", "parity"} <= set(re.findall(r"\w+", both.stdout))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data/light/0.png", "--task", "cars"], "Unknown task 'cars'; known are: parity, shade"),
        (["data/dark/broken.png"], "not an image"),
    ],
)
def test_a_refused_request_is_one_sentence(
    server: tuple[subprocess.Popen[str], str], folder: Path, arguments: list[str], words: str
) -> None:
    run = espalier("infer", *arguments, "--url", server[1], cwd=folder)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.split())


def test_a_port_in_use_and_a_clean_stop(server: tuple[subprocess.Popen[str], str], repository: Path) -> None:
    process, url = server
    second = espalier("serve", repository, "--http-port", url.rsplit(":")[-1], "--grpc-port", "0")
    assert second.returncode == 2
    assert "is in use by another process" in " ".join(second.stderr.split())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_a_task_of_another_backbone_is_refused(folder: Path, repository: Path, tmp_path: Path) -> None:
    save_backbone(tiny_resnet(seed=9), tmp_path / "other.safetensors")
    run = espalier(
        "export",
        "--backbone",
        tmp_path / "other.safetensors",
        "--task",
        f"p={folder / 'parity'}.safetensors",
        "--out",
        tmp_path / "repo",
    )
    assert run.returncode == 2
    assert "weights" in run.stderr
    assert not (tmp_path / "repo").exists()


def test_the_demo_runs_to_its_end(folder: Path) -> None:
    said = succeed("demo", "--backbone", folder / "backbone.safetensors", "--out", folder / "demo", "--epochs", "1")
    differences = [float(value) for value in re.findall(r"│ +(\de[-+]\d+) │", said)]
    assert len(differences) == 9
    assert max(differences) < 1e-4
    for words in ("SubTuning", "Composed segments equal", "trunk runs", "separate networks", "Done in"):
        assert words in said
    tasks = read_repository(folder / "demo" / "repository").tasks
    assert tasks.keys() == {"parity", "size-class", "angle", "rotated", "inverted"}
    assert len({task.steps[0] for task in tasks.values()}) == 1
