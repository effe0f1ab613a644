"""The commands of docs/guides/add-while-serving.md, in their order, on tiny networks and beside a server."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest

from contract.repository import read_repository
from serving.server import BackgroundServer
from tests.documents import commands_of, examples
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight", "unsynced")]
TOKEN = "s3cret"


def run(folder: Path, text: str) -> None:
    for words in commands_of(text):
        done = espalier(*words[1:], cwd=folder)
        assert done.returncode == 0, (words, done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("pets", "flowers", "birds", "better", "trees")):
        Net(blocks=(1, 2, 3, 40 + seed), head=seed).save(tmp_path / f"{name}.onnx")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    run(tmp_path, "espalier export --task pets=pets.onnx --task flowers=flowers.onnx --out repo")
    return tmp_path


def test_the_commands_of_the_document(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPALIER_ADMIN_TOKEN", raising=False)
    deploy, canary, others = examples("docs/guides/add-while-serving.md", __file__)
    with BackgroundServer(folder / "repo", http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        run(folder, deploy.text.replace("http://127.0.0.1:8000", f"http://{server.http_address}"))
        with urlopen(f"http://{server.http_address}/v2/models/birds/ready", timeout=30) as answer:
            assert answer.status == 200
    run(folder, canary.text)
    assert read_repository(folder / "repo").tasks["pets"].version == "1"  # promoted, and gone back
    run(folder, others.text)
    assert read_repository(folder / "repo").tasks.keys() == {"flowers", "trees"}
