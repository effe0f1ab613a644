"""Models that espalier did not export as folders: they come and go, are read or not, and are left as they are."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http

from contract.errors import RepositoryError
from contract.repository import ALL_TASKS, read_repository
from contract.repository.read import RepositoryReader
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from serving.engines.onnxruntime.plain import read_plain, refuse_plain
from serving.server import BackgroundServer, Server
from tests.serving.engines.onnxruntime.plain_folder import (
    SERVED,
    UNSERVED,
    ask,
    floats,
    write_folder,
    write_served,
    write_unserved,
)
from tests.serving.nets import TASK_NAMES, write_repository
from tests.serving.plain_models import (
    add_sub,
    config_of,
    identity,
    write_model,
)
from tests.serving.protocol.test_control import TOKEN, Controller

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("plain") / "repo")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Path, Controller]]:
    """A server on a plain repository that may be changed, and a client of it."""
    write_model(tmp_path / "repo/double", identity(factor=2))
    write_model(tmp_path / "repo/simple", add_sub(), config_of("INT32"))
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        client = Controller(tritonclient.grpc, server)
        yield tmp_path / "repo", client
        client.client.close()


def test_they_come_and_go_like_tasks(own: tuple[Path, Controller]) -> None:
    repo, client = own

    def factor() -> float:
        return float(ask(client, "double", {"x": floats(1, 3) + 1}).as_numpy("y")[0, 0])

    assert (client.index(), factor()) == ({"double", "simple"}, 2)
    write_model(repo / "double", identity(factor=3))
    assert factor() == 2  # until it is told
    client.load("double")
    assert factor() == 3
    write_model(repo / "double", identity(factor=4), file="2/model.onnx")
    client.load("double")
    assert (factor(), client.ask("get_model_metadata", "double")["versions"]) == (4, ["2"])
    write_model(repo / "double", b"damaged", file="2/model.onnx")
    status, sentence = client.refusal("load", "double")
    assert (status, sentence.startswith("Model 'double' was not loaded, and nothing has changed: ONNX Runtime does not")) == (
        "StatusCode.INVALID_ARGUMENT",
        True,
    )
    assert (factor(), str(repo) in sentence) == (4, False)
    client.unload("double")
    assert client.index() == {"simple"}
    write_model(repo / "new", identity(factor=5))
    client.load("new")
    client.load(ALL_TASKS)
    assert client.index() == {"simple", "new"}
    assert client.refusal("load", "double")[0] == "StatusCode.INVALID_ARGUMENT"
    shutil.rmtree(repo / "double/2")
    client.load("double")
    assert (client.index(), factor()) == ({"simple", "new", "double"}, 3)


def test_the_log_names_what_is_not_served_or_not_heeded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), BackgroundServer(folder, http_port=0, grpc_port=0, threads=1):
        pass
    said = [record.getMessage() for record in caplog.records if record.name == "serving.lifecycle"]
    for name, (_, _, words) in UNSERVED.items():
        assert sum(line.startswith(f"Model {name!r} is not served: ") and words in line for line in said) == 1
    assert "Model 'partial' is served, but not what its config.pbtxt says of instance_group." in said
    assert len(said) == len(UNSERVED) + 1


def test_a_repository_in_which_nothing_can_be_served(tmp_path: Path) -> None:
    write_unserved(tmp_path)
    with pytest.raises(RepositoryError, match=r"holds no model that can be served\. a_python: It is for 'python'"):
        asyncio.run(Server(tmp_path, http_port=0, grpc_port=0).start())


def test_where_tritons_compute_they_are_not_served(folder: Path) -> None:
    found = RepositoryReader(folder, refuse_plain).read()
    assert found.tasks.keys() == {*TASK_NAMES}
    assert found.unserved.keys() == {*SERVED, *UNSERVED}
    assert {reason for name, reason in found.unserved.items() if name in SERVED} == {
        "With Triton as the engine only what espalier has exported is served; ask Triton for it, or take the embedded engine."
    }


def test_one_that_is_larger_than_the_memory_is_not_served(folder: Path) -> None:
    found = RepositoryReader(folder, partial(read_plain, memory_limit_bytes=1000)).read()
    assert found.tasks.keys() == {*TASK_NAMES}
    assert all(found.unserved[name].endswith("more than the limit of 1000 bytes; raise the limit.") for name in SERVED)


def test_a_task_of_ours_whose_configuration_is_damaged_is_no_plain_model(tmp_path: Path) -> None:
    write_repository(tmp_path)
    reader = RepositoryReader(tmp_path, read_plain)
    reader.read()
    (tmp_path / "late/config.pbtxt").write_bytes(b"\xff\x00")
    with pytest.raises(RepositoryError, match=r"late/config\.pbtxt cannot be read"):
        reader.read()


def test_what_changes_a_repository_leaves_them_as_they_are(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write_repository(repo)
    write_served(repo)
    write_model(repo / "misnamed", identity(), 'name: "another"')
    names = (*SERVED, "misnamed")

    def files() -> dict[str, bytes]:
        return {
            str(file.relative_to(repo)): file.read_bytes()
            for name in names
            for file in (repo / name).rglob("*")
            if file.is_file()
        }

    before = files()
    remove_tasks(repo, ["late"])
    collect_garbage(repo)
    assert (files(), read_repository(repo).tasks.keys()) == (before, {*TASK_NAMES} - {"late"})
    assert RepositoryReader(repo, read_plain).read().tasks.keys() == {*TASK_NAMES, *SERVED} - {"late"}
