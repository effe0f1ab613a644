"""The local Triton as a process and a command: it starts and ends as asked, leaves nothing, and says why when it cannot be had."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from contract.repository import Repository
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from serving.errors import AddressInUse
from serving.local_triton import environment as environments
from serving.local_triton.command import TritonOptions, docker_command
from serving.local_triton.environment import TritonEnvironment, check_machine, set_up
from serving.local_triton.errors import NoSuchRepository, TritonFailed, TritonUnavailable
from serving.local_triton.local import LocalTriton, TritonAddresses, find_cause, local_triton
from serving.process.sockets import listening_socket
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.serving.local_triton.tritons import connect, embedded_answers, rows_for
from tests.serving.protocol.held_requests import wait_for
from tests.serving.test_server import can_connect

ROOT = Path(__file__).parents[3]
EMPTY = TritonOptions(model_control="explicit")  # a server without models starts at once


@pytest.fixture(scope="module")
def environment() -> TritonEnvironment:
    try:
        return set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def machine() -> None:
    """A machine that could run it."""
    try:
        check_machine()
    except TritonUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One task, one segment."""
    out = tmp_path_factory.mktemp("one") / "repo"
    return export_repository(Sources({"late": lambda: TaskModel(Net().model())}, None), ExportOptions(out)).repository


@dataclass(frozen=True)
class Command:
    """`espalier triton up` as a process, and where its Triton listens."""

    process: subprocess.Popen[str]
    said: str
    addresses: TritonAddresses

    @property
    def triton(self) -> int:
        """Return the number of the server's process."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def end(self) -> tuple[int, str]:
        """Return the exit code and stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def up(repository: Repository, *arguments: str, **variables: str) -> Iterator[Command]:
    command = [sys.executable, "-m", "espalier.cli", "triton", "up", str(repository.path), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, cwd=ROOT, env=os.environ | variables, **pipes)  # type: ignore[call-overload]
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "grpc://" in line:
                break
        assert "grpc://" in said, process.communicate()
        found = [word.split("/")[2].rstrip(",") for word in line.split() if "://" in word]
        yield Command(process, said, TritonAddresses(*found))
    finally:
        process.kill()
        process.communicate()


def is_alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def regions(process: int) -> list[Path]:
    return [*Path("/dev/shm").glob(f"espalier-triton-{process}-*")]


@pytest.mark.slow
def test_the_command_serves_until_sigterm_and_leaves_nothing(repository: Repository, environment: TritonEnvironment) -> None:
    with up(repository) as command:
        inputs = rows_for(repository, 3)
        for protocol in ("http", "grpc"):
            client = connect(protocol, command.addresses)
            np.testing.assert_allclose(
                client.infer("late", inputs)["late"], embedded_answers(repository, inputs)["late"], atol=1e-5
            )
            client.close()
        assert docker_command(repository.path, TritonOptions()) in command.said
        assert regions(command.process.pid)
        triton = command.triton
        command.process.send_signal(signal.SIGTERM)
        code, log = command.end()
        assert (code, "Traceback" in log, "successfully unloaded 'late'" in log) == (0, False, True), log
        assert not is_alive(triton)
        assert not regions(command.process.pid)
        assert not can_connect(int(command.addresses.http.split(":")[1]))


@pytest.mark.slow
def test_it_says_when_its_triton_ends_by_itself(repository: Repository, environment: TritonEnvironment) -> None:
    with up(repository, "--quiet", "--model-control", "explicit") as command:
        os.kill(command.triton, signal.SIGKILL)
        code, said = command.end()
        assert code == 2
        assert said.startswith("Error: Triton ended by itself (exit code -9)")


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(repository: Repository, environment: TritonEnvironment) -> None:
    with up(repository, "--quiet", "--model-control", "explicit") as command:
        triton = command.triton
        os.kill(triton, signal.SIGSTOP)  # so that it cannot end as it should
        try:
            status = Path(f"/proc/{triton}/status")
            wait_for(lambda: "State:\tT" in status.read_text())
            command.process.send_signal(signal.SIGTERM)
            wait_for(lambda: f"ShdPnd:\t{1 << (signal.SIGTERM - 1):016x}" in status.read_text())
            command.process.send_signal(signal.SIGINT)
            assert command.end() == (128 + signal.SIGINT, "")
            assert not is_alive(triton)
        finally:
            with suppress(ProcessLookupError):
                os.kill(triton, signal.SIGKILL)


@pytest.mark.slow
def test_triton_ends_with_a_command_that_is_killed(
    repository: Repository, environment: TritonEnvironment, tmp_path: Path
) -> None:
    # What a killed command cannot remove is its small folder for temporary files.
    with up(repository, "--quiet", "--model-control", "explicit", TMPDIR=str(tmp_path)) as command:
        triton = command.triton
        command.process.kill()
        wait_for(lambda: not is_alive(triton))


@pytest.mark.slow
def test_what_triton_refuses_is_said_and_nothing_is_left(environment: TritonEnvironment, tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.pbtxt").write_text("nonsense: 1")
    triton = LocalTriton(tmp_path, environment=environment)
    with pytest.raises(TritonFailed, match=r"before it was ready \(exit code 1\): Poll failed for model directory 'strange'"):
        triton.start()
    assert not is_alive(triton.process_id)
    with pytest.raises(TritonFailed, match="was not ready in time"), local_triton(tmp_path, EMPTY, ready_s=0):
        pass
    with pytest.raises(NoSuchRepository, match="nowhere is not a folder"):
        LocalTriton(tmp_path / "nowhere").start()


@pytest.mark.slow
def test_a_port_that_is_taken_is_said(environment: TritonEnvironment, tmp_path: Path) -> None:
    with listening_socket("127.0.0.1", 0) as taken, pytest.raises(AddressInUse, match="in use by another process"):
        LocalTriton(tmp_path, TritonOptions(grpc_port=taken.getsockname()[1])).start()


@pytest.mark.slow
def test_two_at_once_do_not_meet(environment: TritonEnvironment, tmp_path: Path) -> None:
    with local_triton(tmp_path, EMPTY) as one, local_triton(tmp_path, EMPTY) as two:
        addresses = [getattr(triton.addresses, name) for triton in (one, two) for name in ("http", "grpc", "metrics")]
        assert len({*addresses}) == 6
        one.stop()
        assert two.http_url == f"http://{two.addresses.http}"
        assert connect("grpc", two.addresses).server.is_server_ready()


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "E1 1 x.cc:1] \"failed to load 'm' version 1: Internal: no\\n\\nAt:\\n  file(1)\\n\"",
            "failed to load 'm' version 1: Internal: no",
        ),
        ("E1 1 x.cc:1] \"Poll failed for model directory 'm': bad\"", "Poll failed for model directory 'm': bad"),
        ('E1 1 x.cc:1] "failed to start HTTP service: in use "', "failed to start HTTP service: in use"),
        ("error: creating server: Internal - x.", "creating server: Internal - x"),
        ('E1 1 x.cc:1] "CudaDriverHelper has not been initialized."', ""),
        ("I1 1 x.cc:1] \"failed to load 'm'\"", ""),
    ],
)
def test_the_log_says_why(log: str, cause: str) -> None:
    assert find_cause(["first", log, "error: last"]) == (cause or "last")


def test_the_container_gets_the_same_folder_and_one_pool_of_threads(tmp_path: Path) -> None:
    command = docker_command(tmp_path / "a repo", TritonOptions(threads=3, model_control="explicit", load=("all_tasks",)))
    assert command.split(" ", 2)[:2] == ["docker", "run"]
    for words in (
        f"-v {tmp_path}:/models:ro nvcr.io/nvidia/tritonserver:24.10-py3 tritonserver '--model-repository=/models/a repo'",
        "--disable-auto-complete-config --model-control-mode=explicit --load-model=all_tasks",
        "--backend-config=onnxruntime,enable-global-threadpool=1 --backend-config=onnxruntime,intra_op_thread_count=3",
    ):
        assert words in command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "nowhere"], "not a folder"),
        (["up", "."], "holds no task of espalier"),
        (["up", ".", "--load", "late"], "it goes with --model-control explicit only"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    run = espalier("triton", *arguments, cwd=tmp_path)
    assert (run.returncode, words in " ".join(run.stderr.replace("│", " ").split())) == (2, True), run.stderr


@pytest.mark.slow
def test_a_model_that_is_not_there_is_said_before_triton_is_started(repository: Repository) -> None:
    options = ["--model-control", "explicit", "--load", "late", "--load", "zebra", "--quiet"]
    run = espalier("triton", "up", repository.path, *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Unknown model 'zebra'; known are: all_tasks, late." in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["up"], ["setup"]])
def test_the_commands_have_help(command: list[str]) -> None:
    run = espalier("triton", *command, "--help")
    assert run.returncode == 0
    assert len(run.stdout) > 300


# Setting up: the real one is what every test above runs in.


def pretend(folder: Path) -> Path:
    """Make what looks like an environment that is there."""
    place = folder / environments._key()
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python3").touch()
    return place


def test_what_is_there_is_not_made_again(machine: None, tmp_path: Path) -> None:
    place, said = pretend(tmp_path), []
    assert set_up(tmp_path, said.append).folder == place
    assert said == []
    assert not (tmp_path / "lock").exists()


def test_who_comes_second_waits_and_uses_what_the_first_has_made(machine: None, tmp_path: Path) -> None:
    said, waits, found = [], threading.Event(), []

    def say(sentence: str) -> None:
        said.append(sentence)
        waits.set()

    with (tmp_path / "lock").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: found.append(set_up(tmp_path, say)))
        second.start()
        assert waits.wait(20)
        place = pretend(tmp_path)
    second.join(20)
    assert [environment.folder for environment in found] == [place]
    assert said == ["Another process is setting up Triton; waiting for it to end."]


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_nothing_is_left(machine: None, tmp_path: Path) -> None:
    (tmp_path / "new-from-a-kill").mkdir()
    code = f"""
import resource
from pathlib import Path
from serving.local_triton.environment import set_up
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
set_up(Path({str(tmp_path)!r}), print)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Setting up Triton" in run.stdout
    assert "TritonUnavailable: The local Triton cannot be had here: python -m venv failed" in run.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_is_said(machine: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TritonUnavailable, match="file/triton cannot be written"):
        set_up(tmp_path / "file" / "triton")
