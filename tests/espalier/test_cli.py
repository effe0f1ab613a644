from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from espalier.cli import main
from serving.engines.embedded import EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.limits import Limits, changed_limits
from tests.exporter.graphs import Net
from tests.exporter.test_export import BACKBONE, FAMILY

# as a whole: the fast part of the suite is to stay under a minute
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight")]


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    stderr: str


def espalier(*arguments: str | Path, cwd: Path = Path()) -> Run:
    """Run the command line in this process, its exit code and streams caught: a fresh process takes seconds to import."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["espalier", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Run(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name, net in {**FAMILY, "backbone": BACKBONE, "stranger": Net(blocks=(7,), head=9, stem=9)}.items():
        net.save(folder / f"{name}.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "late.onnx").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def repository(networks: Path) -> Path:
    tasks = [word for name in FAMILY for word in ("--task", f"{name}={networks / name}.onnx")]
    run = espalier("export", "--backbone", networks / "backbone.onnx", *tasks, "--cuts", "exact", "--out", networks / "repo")
    assert run.returncode == 0, run.stderr
    assert "espalier serve" in run.stdout
    return networks / "repo"


def test_inspect_shows_the_tree_and_what_sharing_saves(repository: Path) -> None:
    run = espalier("inspect", repository)
    assert run.returncode == 0
    for word in ("trunk-00-00", "late", "separate", "GFLOPs = 2 x GMACs", "Not counted"):
        assert word in run.stdout


def test_inspect_as_json_counts_the_trunk_once(repository: Path) -> None:
    data = json.loads(espalier("inspect", repository, "--json").stdout)
    assert data["tasks"].keys() == FAMILY.keys()
    # Hand count: 4 networks share the stem, and 3 of them block 1.
    stem, block = 36 * 4 * 27, 36 * 4 * (36 + 4)
    heads = 4 * (3 + 5 + 3 + 2)
    assert data["separate"]["macs"] == 4 * (stem + 4 * block) + heads
    assert data["shared"]["macs"] == stem + (2 + 3 + 3 + 4) * block + heads


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export"], "at least one with --task NAME=FILE"),
        (["export", "--task", "p"], "not of the form NAME=MODEL"),
        (["export", "--task", "p=missing.onnx"], "no such file"),
        (["export", "--task", "p=truncated.onnx"], "truncated"),
        (["export", "--task", "p=late.onnx", "--task", "p=late.onnx"], "given twice"),
        (["export", "--backbone", "backbone.onnx", "--task", "p=stranger.onnx"], "another architecture"),
        (["export", "--task", "p=late.onnx", "--preprocess", "maybe"], "in-graph or none"),
        (["export", "--task", "p=late.onnx", "--out", "repo"], "--force"),
        pytest.param(["export", "--backbone", "no-such-net", "--task", "p=late.onnx"], "no-such-net", marks=pytest.mark.slow),
        (["inspect", "."], "holds no task of espalier"),
        (["inspect", "nowhere"], "not a folder"),
        (["serve", "nowhere"], "not a folder"),
        (["serve", "repo", "--limit", "head=1"], "'head=1' sets no limit; give NAME=VALUE"),
        (["infer", "missing.png"], "cannot be read"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(repository: Path, networks: Path, arguments: list[str], words: str) -> None:
    before = sorted(networks.rglob("*"))
    run = espalier(*arguments, cwd=networks)
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.returncode == 2
    assert words in said
    assert "Traceback" not in said
    assert sorted(networks.rglob("*")) == before


def test_options_of_serve_reach_the_engine(repository: Path, networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[EngineOptions] = []
    monkeypatch.setattr("serving.server.run", lambda repository, *, options, **others: found.append(options))
    for given in (
        [],
        ["--verify-segments"],
        ["--threads", "3", "--no-spin", "--memory-limit", "1GB", "--no-segment-cache", "--no-learn-rows"],
    ):
        assert espalier("serve", "repo", *given, cwd=networks).returncode == 0
    default, verifying, chosen = found
    assert verifying.checked_file is None
    assert (default.sessions.threads, default.sessions.spin, default.learn_rows) == (None, True, True)
    assert default.sessions.cache_folder is not None
    assert default.checked_file == default.sessions.cache_folder.with_name("checked.txt")
    assert chosen == EngineOptions(SessionStoreOptions(3, spin=False, memory_limit_bytes=10**9))


def test_limits_of_serve_reach_the_server(repository: Path, networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Limits] = []
    monkeypatch.setattr("serving.server.run", lambda repository, *, limits, **others: found.append(limits))
    changed = ["headers=7", "head_s=0.5", "image_bytes=2KiB"]
    for given in ([], [word for name in changed for word in ("--limit", name)]):
        assert espalier("serve", "repo", *given, cwd=networks).returncode == 0
    assert found == [Limits(), changed_limits(changed)]
    done = espalier("serve", "repo", "--limit", "heads=7", cwd=networks)
    assert done.returncode == 2
    assert "'heads=7' sets no limit" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in "tune export add remove gc inspect diff serve infer demo".split()),
        *(
            ["tune", name]
            for name in "blocks profile costs greedy replay fit active prune compare transfer pretrain plot".split()
        ),
    ],
)
def test_every_command_has_help(command: list[str]) -> None:
    run = espalier(*command, "--help")
    assert run.returncode == 0
    assert len(run.stdout) > 300


def test_what_needs_the_extra_says_so_without_it(monkeypatch: pytest.MonkeyPatch, networks: Path, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("onnxscript", "exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    run = espalier("export", "--task", f"p={networks / 'late.onnx'}", "--out", tmp_path / "repo")
    assert run.returncode == 2
    assert "needs onnxscript" in run.stderr
    assert "espalier[export]" in run.stderr


def test_the_process_ends_with_the_exit_code() -> None:
    command = [sys.executable, "-m", "espalier.cli", "inspect", "nowhere"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("Error: nowhere is not a folder")
