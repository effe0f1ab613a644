"""The command line where something is missing that is nearly always there: a home, a place for temporary files, a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from contract.user_folders import cache_folder
from espalier.cli import main
from espalier.commands.options.training import Cache, cache_limits
from espalier.console import OutputStream, escape_what_cannot_be_encoded, open_console
from exporter.errors import NoScratch
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from serving.engines.onnxruntime.segment_cache import NoSegmentCache, default_cache_folder
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net

LABELS = ("Kätzchen", ":boom:", "[bold]dog[/]")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "repo"
    model = TaskModel(Net(blocks=(1,)).model(), LABELS)
    export_repository(Sources({"pets": lambda: model}), ExportOptions(out))
    return out


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without HOME and without an entry in the list of users, as a container may have."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_123)


@pytest.fixture
def nowhere_temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_a_cache_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() is None
    with pytest.raises(NoSegmentCache, match="no home folder"):
        default_cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "espalier" / "segments"


def test_a_cache_that_cannot_be_used_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(NoSegmentCache, match=r"file/espalier/segments cannot be made \(Not a directory\)"):
        default_cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default_cache_folder().chmod(0o777)
    with pytest.raises(NoSegmentCache, match="others may write to"):
        default_cache_folder()


@pytest.mark.slow
@pytest.mark.usefixtures("nowhere_temporary")
def test_without_temporary_files_the_exporter_works_beside_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources({"pets": lambda: TaskModel(Net(blocks=(1,)).model())})
    export_repository(sources, ExportOptions(tmp_path / "new" / "repo"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["repo"]
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(NoScratch, match="TMPDIR"):
        export_repository(sources, ExportOptions(tmp_path / "other"))


def test_features_in_memory_take_half_of_what_the_container_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    monkeypatch.setattr("contract.system.CGROUP_FILE", tmp_path / "self")
    monkeypatch.setattr("contract.system.CGROUP_ROOT", tmp_path)
    assert cache_limits(Cache.MEMORY) == (500_000, None)


@pytest.mark.usefixtures("nowhere_temporary")
def test_without_temporary_files_features_are_kept_in_memory() -> None:
    assert cache_limits(Cache.AUTO)[1] is None
    with pytest.raises(typer.BadParameter, match="TMPDIR"):
        cache_limits(Cache.DISK)


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "errors"), [("ascii", "strict"), ("ascii", "surrogateescape"), ("latin-1", "strict")])
def test_letters_that_the_output_has_not_are_escaped(
    repository: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, errors))
    monkeypatch.setattr(sys, "argv", ["espalier", "inspect", str(repository)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    shown = written.getvalue().decode(encoding)
    assert ("Kätzchen" if encoding == "latin-1" else r"K\xe4tzchen") in shown


@pytest.mark.slow
def test_text_of_others_is_shown_as_it_is(repository: Path) -> None:
    assert "Kätzchen, :boom:, [bold]dog[/]" in espalier("inspect", repository).stdout
    assert "Error: [bold]:boom:[/] is not a folder" in espalier("gc", "[bold]:boom:[/]").stderr.replace("\n", " ")


def test_bytes_of_file_names_that_are_no_text_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8"))
    escape_what_cannot_be_encoded()
    open_console(OutputStream("stdout")).print(os.fsdecode(b"\xff.onnx"))
    assert written.getvalue() == b"\\udcff.onnx\n"


def test_a_reader_who_has_gone_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output = OutputStream("stdout")
        for _ in range(2):
            open_console(output).print("nobody reads this")
        assert output.failure is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_an_output_that_cannot_be_written_is_said_after_the_work(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["espalier", "version"])
        monkeypatch.setattr("espalier.console.output.failure", None)
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1
    assert "did its work, but what it says cannot be written (No space left on device)" in capfd.readouterr().err


def test_no_output_at_all_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    open_console(OutputStream("stdout")).print("closed before the process began")


def test_no_columns_are_as_good_as_none_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert open_console(OutputStream("stdout")).width == 80


def test_a_working_directory_that_was_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["espalier", "inspect", "repo"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
