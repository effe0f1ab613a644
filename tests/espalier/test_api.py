"""The public names: each does its work on a tiny repository, and `import espalier` costs nothing."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import espalier
from contract.errors import InvalidRequest, OutputExists, RepositoryError, UnknownTask
from contract.repository import Repository, read_repository
from exporter.errors import TaskExists
from exporter.sharing.choose import CutOptions
from serving.engines.embedded import EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.errors import LoadsRefused, NotAnImage, RequestRefused, ServerUnreachable
from serving.server import BackgroundServer
from tests.exporter.graphs import SIZE, Net
from tests.exporter.test_export import BACKBONE, FAMILY
from tests.serving.nets import TASK_NAMES, images, whole

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight", "unsynced")]

ONE_THREAD = EngineOptions(SessionStoreOptions(threads=1))
TOKEN = "sesame"
ANYWHERE = {"http_port": 0, "grpc_port": 0, "threads": 1}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    for name, net in {**FAMILY, "backbone": BACKBONE}.items():
        net.save(folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in (*FAMILY, "backbone")}


def test_importing_espalier_loads_nothing_heavy_and_asking_for_names_neither() -> None:
    names = "from espalier import add, deploy, export, open, remove, serve, Client, AsyncClient, __version__"
    heavy = "torch numpy onnxruntime onnx fastapi grpc PIL typer rich serving exporter tuning benchmarks"
    code = f"import sys, espalier; {names}; print(*set(sys.modules) & set('{heavy}'.split()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_list_is_what_is_there() -> None:
    assert espalier.__all__ == ["AsyncClient", "Client", "add", "deploy", "export", "open", "remove", "serve"]
    assert set(espalier.__all__) <= set(dir(espalier))
    assert all(getattr(espalier, name).__doc__ for name in espalier.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'undo'"):
        espalier.undo  # noqa: B018


def test_a_repository_is_written_changed_and_opened(networks: dict[str, Path], tmp_path: Path) -> None:
    repo, backbone = tmp_path / "repo", networks["backbone"]
    first = {name: networks[name] for name in ("late", "middle")}
    exact = CutOptions("exact")
    assert espalier.export(first, repo, backbone=backbone, cuts=exact).repository.tasks.keys() == first.keys()
    with pytest.raises(OutputExists):
        espalier.export(first, repo, backbone=backbone)
    espalier.export(first, repo, backbone=backbone, cuts=exact, force=True)

    assert espalier.add(repo, {"early": networks["early"]}, backbone=backbone).repository.tasks.keys() == {*first, "early"}
    with pytest.raises(TaskExists):
        espalier.add(repo, {"early": networks["early"]}, backbone=backbone)

    new = Net(blocks=(1, 2, 3, 41), head=11, classes=5)
    new.save(tmp_path / "late.onnx")
    change = espalier.deploy(repo, {"late": tmp_path / "late.onnx"}, backbone=backbone).changes["late"]
    assert (change.before is not None, change.after.version) == (True, "2")

    assert espalier.remove(repo, ["middle"], gc=True).collected
    assert read_repository(repo).tasks.keys() == {"early", "late"}
    with pytest.raises(UnknownTask):
        espalier.remove(repo, ["middle"])

    rows = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    expected = ort.InferenceSession(new.proto().SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"image": rows}
    )
    with espalier.open(repo, ONE_THREAD) as opened:
        np.testing.assert_allclose(opened.infer("late", {"image": rows})["logits"], expected[0], rtol=1e-4, atol=1e-5)


def test_an_open_repository_answers_as_its_networks_do(repository: Repository) -> None:
    rows = images(3)
    with espalier.open(repository.path, ONE_THREAD) as opened:
        assert opened.repository.tasks.keys() == set(TASK_NAMES)
        found = opened.infer("all_tasks", {"image": rows}, ["probe", "late"])
        assert list(found) == ["probe", "late"]
        for name, values in found.items():
            np.testing.assert_allclose(values, whole(name, rows), rtol=1e-4, atol=1e-6)
        answer = opened.predict([rows[0], Image.fromarray(rows[1])], ["probe"], top_k=2)
        assert [len(found.labels) for found in answer.tasks["probe"]] == [2, 2]
        assert {label.label for label in answer.tasks["probe"][0].labels} < {"cat", "dog", "emu"}
        with pytest.raises(UnknownTask):
            opened.predict([rows[0]], ["nobody"])
    opened.close()
    with pytest.raises(RuntimeError, match="closed"):
        opened.predict([rows[0]])


def test_what_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="not a folder"):
        espalier.open(tmp_path / "nowhere")
    with pytest.raises(RepositoryError, match="not a folder"):
        espalier.serve(tmp_path / "nowhere", http_port=0, grpc_port=0)


def test_clients_ask_and_tell_a_server(repository: Repository, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(images(1)[0]).save(picture, "PNG")
    (tmp_path / "image.png").write_bytes(picture.getvalue())
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        url = f"http://{server.http_address}/"
        client = espalier.Client(url, TOKEN)
        assert (client.url, TOKEN in repr(client)) == (url.rstrip("/"), False)
        answer = client.predict(picture.getvalue(), ["probe", "late"], top_k=1)["tasks"]
        assert client.predict(tmp_path / "image.png", ["probe", "late"], top_k=1)["tasks"] == answer
        client.unload("late")
        with pytest.raises(RequestRefused, match="Unknown task 'late'"):
            client.predict(picture.getvalue(), ["late"])

        async def ask() -> None:
            other = espalier.AsyncClient(url, TOKEN)
            await other.load("late")
            both = await asyncio.gather(*(other.predict(picture.getvalue(), [name], 1) for name in ("probe", "late")))
            assert {**both[0]["tasks"], **both[1]["tasks"]} == answer
            await other.unload("late")

        asyncio.run(ask())
        with pytest.raises(RequestRefused, match="token"):
            espalier.Client(url).load("late")


def test_clients_say_what_is_wrong(tmp_path: Path) -> None:
    for kind in (espalier.Client, espalier.AsyncClient):
        with pytest.raises(InvalidRequest, match="not the address of a server"):
            kind("localhost")
    client = espalier.Client("http://127.0.0.1:9")
    with pytest.raises(NotAnImage, match="cannot be read"):
        client.predict(tmp_path / "missing.png")
    with pytest.raises(ServerUnreachable):
        client.predict(b"")


def test_deploy_tells_servers(networks: dict[str, Path], tmp_path: Path) -> None:
    repo, backbone = tmp_path / "repo", networks["backbone"]
    espalier.export({"late": networks["late"]}, repo, backbone=backbone)
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as server:
        client = espalier.Client(f"http://{server.http_address}", TOKEN)
        with pytest.raises(LoadsRefused, match=r"nothing was changed \(501\): .* it was started without an admin token\.$"):
            espalier.deploy(repo, {"early": networks["early"]}, servers=[client])
    assert read_repository(repo).tasks.keys() == {"late"}
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        client = espalier.Client(f"http://{server.http_address}", TOKEN)
        asyncio.run(espalier.AsyncClient(client.url, TOKEN).check_control())
        with pytest.raises(LoadsRefused, match=r"\(403\)"):
            espalier.Client(client.url, "another").check_control()
        espalier.deploy(repo, {"early": networks["early"]}, backbone=backbone, servers=[client])
        client.unload("late")  # it would be refused for the last model


def test_serve_waits_for_a_signal(repository: Repository) -> None:
    code = (
        "import os, signal, sys, threading, time, urllib.request, espalier\n"
        "if __name__ == '__main__':\n"
        "    server = espalier.serve(sys.argv[1], http_port=0, grpc_port=0, threads=1)\n"
        "    print(urllib.request.urlopen(f'{server.url}/v2/health/ready').status, flush=True)\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    server.wait()\n"
        "    print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, repository.path], capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout.splitlines()
    assert (done.returncode, said[0], said[-1]) == (0, "200", "done"), done.stderr
    assert said[1].startswith("Serving on http://127.0.0.1:")


def test_serve_answers_within_a_block_and_not_after_it(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    with espalier.open(repository.path, ONE_THREAD) as opened, espalier.serve(opened, **ANYWHERE) as server:
        client = espalier.Client(server.url)
        asked = {"image": images(2)}
        np.testing.assert_array_equal(client.infer("late", asked)["late"], opened.infer("late", asked)["late"])
        assert server.grpc_address.startswith("127.0.0.1:")
    with pytest.raises(ServerUnreachable):
        client.infer("late", {"image": images(2)})
    server.close()
    assert not caplog.records
    espalier.serve(repository.path, **ANYWHERE)
    assert "stops, for nobody keeps what espalier.serve returned" in caplog.text
