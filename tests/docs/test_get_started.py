"""What README.md and docs/get-started.md tell a new user to do, in that order, on a tiny backbone and two folders of pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents import Block, commands_of, examples
from tests.espalier.test_cli import espalier
from tests.nets import tiny_resnet
from tuning.network.backbone import save_backbone

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_traces")]
# What is put in the place of words of the documents, so that nothing is fetched and little is computed.
TINY = {"pypi:efficientnet_lite0": "backbone.safetensors", "blocks.6.0": "layer4.1", "--epochs 5": "--epochs 1"}
CLASSES = {"flowers": ("rose", "tulip"), "pets": ("cat", "dog")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("started")
    save_backbone(tiny_resnet(), folder / "backbone.safetensors")
    rng = np.random.default_rng(0)
    for task, names in CLASSES.items():
        for name in names:
            (folder / "data" / task / name).mkdir(parents=True)
            for index in range(6):
                picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / "data" / task / name / f"{index}.jpg")
    Image.fromarray(picture).save(folder / "photo.jpg")
    return folder


def run(block: Block, folder: Path, **more: str) -> list[str]:
    """Run the commands of a block; return what each printed."""
    said = []
    for words in commands_of(_tiny(block.text, **more)):
        if words[0] == "espalier":
            done = espalier(*words[1:], cwd=folder)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
        else:
            said.append(subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=60).stdout)
    return said


def _tiny(text: str, **more: str) -> str:
    for word, tiny in (TINY | more).items():
        text = text.replace(word, tiny)
    return text


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """The repository that the page leads to."""
    tune, export, _, _ = examples("docs/get-started.md", __file__)
    blocks, flowers, pets = run(tune, folder)
    assert "layer4.1" in blocks
    assert "test_accuracy" in flowers
    assert "test_accuracy" in pets
    assert "flowers" in run(export, folder)[1]
    return folder / "repo"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[str]:
    (words,) = commands_of(examples("docs/get-started.md", __file__)[2].text)
    command = [sys.executable, "-u", "-m", "espalier.cli", *words[1:], "--http-port", "0", "--grpc-port", "0", "--threads", "1"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(repository.parent / "cache")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=repository.parent
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"Serving on.*?(http://[\d.:]+)", line):
                yield found[1]
                break
        else:
            pytest.fail("".join(said))
        process.kill()


def test_the_page_leads_to_answers(server: str, folder: Path) -> None:
    ask = examples("docs/get-started.md", __file__)[3]
    infer, curl = run(ask, folder, **{"--task pets": f"--task pets --url {server}", "http://127.0.0.1:8000": server})
    assert {"flowers", "pets"} <= set(re.findall(r"\w+", infer))
    assert '"rose"' in curl
    assert '"dog"' in curl


def test_the_lines_of_python_do_the_same(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository.parent)
    (example,) = examples("README.md", __file__)
    exec(compile(example.text.replace('"repo"', '"again"'), "README.md", "exec"), {})
    said = capsys.readouterr().out.split("\n")
    assert said[-3] in CLASSES["flowers"]
    assert "dog" in said[-2]
