"""What `espalier serve` says when it answers: commands that work on the very server, and nothing where a program reads."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from contract.kinds.tensor import Tensor
from contract.preprocessing import Preprocessing
from contract.repository import Repository, Task, TensorSpec
from contract.text import TextInput
from espalier.next_steps import next_steps
from tests.espalier.test_cli import espalier

BASE = Task("many words", (), (TensorSpec("image", "UINT8", (8, 8, 3)),), (TensorSpec("many words", "FP32", (3,)),), 4)
IMAGE = replace(BASE, preprocessing=Preprocessing(8, 8))
TEXT = replace(
    BASE,
    name="mood",
    inputs=(TensorSpec("ids", "INT64", (-1,)),),
    outputs=(TensorSpec("mood", "FP32", (2,)),),
    text=TextInput("0" * 64, "ids", "", "", 8),
)
ARRAYS = replace(BASE, name="levels", outputs=(TensorSpec("levels", "FP32", (3, 4)),), kind=Tensor())


def said(*tasks: Task, address: str = "127.0.0.1:8000", takes_loads: bool = False, page: bool = False) -> list[str]:
    return next_steps({task.name: task for task in tasks}, address, Path("my repo"), takes_loads=takes_loads, page=page)


def test_tasks_are_asked_about_what_they_take() -> None:
    assert said(ARRAYS, IMAGE, TEXT) == [
        "  Ask:    espalier infer photo.jpg --task 'many words'",
        "          curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?tasks=many%20words'",
        '          espalier infer --text "A text." --task mood',
        """          curl -H 'Content-Type: application/json' -d '{"text": "A text.", "tasks": ["mood"]}' http://127.0.0.1:8000/predict""",
        "  Deploy: not allowed; --admin-token-file FILE here allows it, and --token-file FILE with `espalier deploy`; "
        "or ESPALIER_ADMIN_TOKEN.",
    ]
    assert said(ARRAYS)[:2] == [
        "  Ask:    espalier infer --array image=image.npy --task levels",
        "          curl http://127.0.0.1:8000/v2/models/levels    # what it takes",
    ]


def test_another_address_is_named_and_all_addresses_are_none() -> None:
    infer, curl, deploy = said(IMAGE, address="0.0.0.0:9000", takes_loads=True)
    assert infer.endswith(" --url http://127.0.0.1:9000")
    assert "http://127.0.0.1:9000/predict" in curl
    assert deploy == "  Deploy: espalier deploy NAME=MODEL --to 'my repo' --url http://127.0.0.1:9000 --token-file FILE"
    assert "[::1]:7/" in said(IMAGE, address="[::]:7")[1]


def test_the_page_is_named_where_there_is_one() -> None:
    assert said(IMAGE, address="0.0.0.0:9000", page=True) == [
        "  Look:   http://127.0.0.1:9000/ in a browser",
        *said(IMAGE, address="0.0.0.0:9000"),
    ]


@contextmanager
def served(repo: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "espalier.cli", "serve", str(repo), "--http-port", "0", "--grpc-port", "0", "--threads", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "ESPALIER_ADMIN_TOKEN"}
    with subprocess.Popen(
        [*command, "--no-segment-cache", "--no-learn-rows", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


@pytest.mark.slow
def test_what_is_said_works(repository: Repository, tmp_path: Path) -> None:
    with served(repository.path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert re.match(r"Serving on http://127\.0\.0\.1:\d+ ", lines[0])
        assert re.fullmatch(r"  Look:   http://127\.0\.0\.1:\d+/ in a browser\n", lines[1])
        asked = shlex.split(lines[2].partition("Ask:")[2])
        assert asked[:2] == ["espalier", "infer"]
        refused = espalier(*asked[1:], cwd=tmp_path)  # there is no photo.jpg here: the rest is understood
        assert "photo.jpg cannot be read" in " ".join(refused.stderr.split()), refused.stderr
        assert "Deploy: not allowed; --admin-token-file" in lines[4]


@pytest.mark.slow
def test_a_program_that_reads_json_gets_the_addresses_alone(repository: Repository) -> None:
    with served(repository.path, "--log-format", "json") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Serving on ")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
