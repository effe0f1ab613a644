"""What is served stays, whatever becomes of the repository on disk."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contract.errors import RepositoryError
from contract.repository import Repository, Segment, TensorSpec, read_repository
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from serving.engines.embedded import EngineOptions
from serving.engines.onnxruntime.runtime import OnnxRuntime, session_store
from serving.engines.sessions import failures
from serving.engines.sessions.kept_files import KeptFiles
from serving.engines.sessions.runtime import SegmentFile, SessionStoreOptions
from serving.engines.triton.models import KeptModels
from serving.server import BackgroundServer
from tests.contract.repository.states import replace_with
from tests.serving.engines.onnxruntime.test_segment_cache import wide_model
from tests.serving.engines.sessions.test_store import limited
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole, write_repository
from tests.serving.protocol.test_protocols import Client


def undeploy_and_gc(repo: Path) -> None:
    remove_tasks(repo, ["probe", "colour", "parity"])
    assert {"mid", "tuned-a", "suffix"} < collect_garbage(repo).keys()


def export_another(repo: Path) -> None:
    other = write_repository(repo.parent / "other")
    remove_tasks(other.path, ["late", "parity"], gc=True)
    replace_with(repo, read_repository(other.path))


def move_away(repo: Path) -> None:
    repo.rename(repo.with_name("elsewhere"))


@contextmanager
def short_of_memory(repo: Path, repository: Repository) -> Iterator[Client]:
    """A server that has room for three segments, so that it closes and opens them all the time."""
    limit = limited(repository, 3)._memory_limit_bytes
    options = EngineOptions(SessionStoreOptions(threads=1, provider="cpu", memory_limit_bytes=limit))
    with BackgroundServer(repo, options=options, http_port=0, grpc_port=0, admin_token="t") as server:
        yield Client(tritonclient.http, server)


def metrics(client: Client) -> str:
    return bytes(client.client._get("metrics", None, None).read()).decode()


def check_answers(client: Client, *tasks: str) -> None:
    for task in tasks:
        answer = client.infer(task, images(2)).as_numpy(task)
        np.testing.assert_allclose(answer, whole(task, images(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", [undeploy_and_gc, export_another, move_away, shutil.rmtree])
def test_changes_on_disk_that_nobody_told_the_server_of_change_nothing(
    broken_repository: Path, repository: Repository, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with short_of_memory(broken_repository, repository) as client:
        change(broken_repository)
        check_answers(client, *TASK_NAMES, *TASK_NAMES)
        assert client.client.is_server_ready()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
def test_a_file_that_is_damaged_makes_its_tasks_unready_until_it_is_mended(
    broken_repository: Path, repository: Repository, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "AGAIN_S", 0.0)
    file = broken_repository / "suffix/1/model.onnx"
    content = file.read_bytes()
    with_suffix = {task for task in TASK_NAMES if "suffix" in CHAINS[task]}
    sentence = "Task 'parity' could not be computed: Segment 'suffix' cannot be loaded: its model.onnx is damaged"
    with short_of_memory(broken_repository, repository) as client:
        check_answers(client, "late")
        for name in ("branch-late", "head-probe", "mid"):  # no room is left for the suffix
            client.infer(name, np.zeros((1, LAYERS[name].sizes[0]), np.float32), name="input", dtype="FP32")
        file.write_bytes(content[:100])
        with pytest.raises(InferenceServerException, match=sentence):
            client.infer("parity", images(1))
        assert not client.client.is_server_ready()
        assert {task for task in TASK_NAMES if not client.client.is_model_ready(task)} == with_suffix
        states = {entry["name"]: entry for entry in client.client.get_model_repository_index()}
        assert states["parity"]["state"] == "UNAVAILABLE"
        assert "segment 'suffix' cannot be opened from its files" in states["parity"]["reason"]
        assert states["late"]["state"] == "READY"
        check_answers(client, "late")
        assert "espalier_unavailable_segments 1\n" in metrics(client)
        file.unlink()
        file.write_bytes(content)
        check_answers(client, *TASK_NAMES)
        assert client.client.is_server_ready()
        assert "espalier_unavailable_segments 0\n" in metrics(client)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("Until then, the tasks that need it are not ready." in record.getMessage() for record in said)
    assert not [record for record in said if record.exc_info]


def test_after_a_failure_the_next_attempt_is_a_second_later(
    broken_repository: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Repository(broken_repository, repository.segments, repository.tasks)
    file = broken.model_file("mid")
    store = session_store(SessionStoreOptions(threads=1, provider="cpu"))
    store.declare([SegmentFile(repository.segments["mid"], file)])
    file.write_bytes(b"damaged")
    loads: list[SegmentFile] = []
    load = OnnxRuntime.load
    monkeypatch.setattr(OnnxRuntime, "load", lambda self, file: (loads.append(file), load(self, file))[1])
    for _ in range(3):
        with pytest.raises(RepositoryError, match="Segment 'mid' cannot be loaded"):
            store.run("mid", [np.zeros((1, 7), np.float32)])
    assert len(loads) == 1
    assert store.unavailable() == ("mid",)
    store.close_all()
    assert store.unavailable() == ()


def test_keeping_takes_no_descriptors_and_gives_everything_back(tmp_path: Path) -> None:
    models = [tmp_path / str(number) / "model.onnx" for number in range(50)]
    for number, model in enumerate(models):
        model.parent.mkdir()
        model.write_bytes(os.urandom(5000 + number))
        (model.parent / "empty").touch()
    contents = [model.read_bytes() for model in models]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    kept = [KeptFiles(model) for model in models]
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert kept[0].bytes == 5000
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert [files.use(lambda path: (path.read_bytes(), path.with_name("empty").read_bytes())) for files in kept] == [
        (content, b"") for content in contents
    ]
    mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
    assert mapped >= 50
    del kept
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) <= mapped - 50


def test_weights_beside_the_model_are_kept_too(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "one/model.onnx")
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    kept = KeptFiles(model)
    assert (tmp_path / "one/model.onnx.data").stat().st_size < kept.bytes
    before = run(ort.InferenceSession(model))
    (tmp_path / "one").rename(tmp_path / "two")
    np.testing.assert_array_equal(run(kept.use(ort.InferenceSession)), before)
    shutil.rmtree(tmp_path / "two")
    np.testing.assert_array_equal(run(kept.use(ort.InferenceSession)), before)


def run(session: ort.InferenceSession) -> np.ndarray:
    return session.run(None, {"input": np.ones((1, 3, 4, 4), np.float32)})[0]


def test_what_was_made_shorter_is_an_error_and_no_crash(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(os.urandom(100_000))
    kept = KeptFiles(file)
    with file.open("r+b") as stream:
        file.unlink()
        stream.truncate(10)
        with pytest.raises(OSError, match="Bad address"):
            kept.use(Path.read_bytes)


def test_a_segment_is_opened_anew_when_both_its_file_and_its_optimised_form_are_gone(tmp_path: Path) -> None:
    model = wide_model(tmp_path / "repo/large/1/model.onnx", width=1200)
    specs = (TensorSpec("input", "FP32", (3, 4, 4)),), (TensorSpec("output", "FP32", (1200,)),)
    large = SegmentFile(Segment("large", *specs, (0, 0), "0" * 64, 8), model)
    store = session_store(SessionStoreOptions(threads=1, provider="cpu", cache_folder=tmp_path / "cache"))
    store.open([large])
    rows = np.ones((2, 3, 4, 4), np.float32)
    before = store.run("large", [rows])[0]
    shutil.rmtree(tmp_path / "repo")
    shutil.rmtree(tmp_path / "cache")
    store.close_all()
    store.open([large])
    np.testing.assert_array_equal(store.run("large", [rows])[0], before)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    store.close_all()


def test_models_that_are_sent_to_tritons_are_kept(broken_repository: Path) -> None:
    repository = read_repository(broken_repository)
    model = repository.model_file("mid").read_bytes()
    files = KeptModels(repository, ["mid", "trunk"])
    shutil.rmtree(broken_repository)
    assert files("mid")[1] == {"1/model.onnx": model}
    again = KeptModels(repository, ["mid"], files)  # of a load after which it is served still
    assert again("mid") == files("mid")
    with pytest.raises(RepositoryError, match="Model 'suffix' cannot be read"):
        KeptModels(repository, ["mid", "suffix"], files)
