"""The program perf_analyzer, fetched once per user: by pip from requirements.txt, and Debian's libb64 by apt-get where the system has none.

    FOLDER/<hash of the pins>/    bin/perf_analyzer, nvidia/cuda_runtime/lib/, usr/lib/*/
    FOLDER/new-*                  one that is being made, or what a killed process left of it, which can be deleted

pip's and apt's own configuration says from where.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_LIBRARY, _PACKAGE = "libb64.so.0d", "libb64-0d"
_FETCH_S = 120.0


class PerfAnalyzerUnavailable(Exception):
    """perf_analyzer cannot be had here."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"perf_analyzer cannot be had here: {reason.rstrip('.')}.")


class PerfAnalyzerFailed(Exception):
    """A run of perf_analyzer ended before it had measured."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"perf_analyzer failed: {reason.rstrip('.')}.")


@dataclass(frozen=True)
class PerfAnalyzer:
    """The program in `folder`."""

    folder: Path

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Return what it says when it is run with `arguments`. Raises PerfAnalyzerFailed with the last that it said."""
        libraries = [*self.folder.glob("usr/lib/*"), *self.folder.glob("nvidia/*/lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        outer = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, map(str, libraries)))}
        try:
            return _run([str(self.folder / "bin" / "perf_analyzer"), *arguments], timeout_s, outer)
        except subprocess.TimeoutExpired as error:
            raise PerfAnalyzerFailed(f"it was not done in {timeout_s:g} s") from error
        except subprocess.CalledProcessError as error:
            raise PerfAnalyzerFailed(_last_line(error)) from error


def _default_folder() -> Path:
    """Return the folder for this user's copy: below XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "espalier" / "perf_analyzer"


def fetch(folder: Path | None = None, timeout_s: float = _FETCH_S) -> PerfAnalyzer:
    """Return the program in `folder` (by default the user's), fetched now if it is not there: 17 MB, some seconds.

    timeout_s: for each of pip and apt. Raises PerfAnalyzerUnavailable; then nothing is left.
    """
    folder = folder or _default_folder()
    place = folder / hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    if not place.exists():
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise PerfAnalyzerUnavailable(f"it is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _make(place, timeout_s)
        except OSError as error:
            raise PerfAnalyzerUnavailable(f"{folder} cannot be written ({error.strerror or error})") from error
    return PerfAnalyzer(place)


def _make(place: Path, timeout_s: float) -> None:
    new = Path(tempfile.mkdtemp(prefix="new-", dir=place.parent))
    try:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        which = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(_REQUIREMENTS)]
        _fetched([*pip, *which, "--target", str(new)], "pip", timeout_s)
        (new / "bin" / "perf_analyzer").chmod(0o755)
        if not _is_installed(_LIBRARY):
            _fetch_library(new, timeout_s)
        try:
            PerfAnalyzer(new).run("--version", timeout_s=timeout_s)
        except PerfAnalyzerFailed as error:
            raise PerfAnalyzerUnavailable(f"it does not run ({error})") from error
        if not place.exists():  # else another process was quicker
            new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_installed(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _fetch_library(folder: Path, timeout_s: float) -> None:
    """Unpack Debian's package into `folder`, which needs no rights."""
    missing = f"it needs {_LIBRARY}; install {_PACKAGE}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PerfAnalyzerUnavailable(missing)
    with tempfile.TemporaryDirectory() as scratch:
        _fetched(["apt-get", "download", _PACKAGE], f"{missing}, or run `apt-get update` first: apt-get", timeout_s, scratch)
        (package,) = Path(scratch).glob("*.deb")
        _fetched(["dpkg-deb", "-x", str(package), str(folder)], "dpkg-deb", timeout_s)


def _fetched(command: Sequence[str], who: str, timeout_s: float, folder: str | None = None) -> None:
    try:
        _run(command, timeout_s, dict(os.environ), folder)
    except subprocess.TimeoutExpired as error:
        raise PerfAnalyzerUnavailable(f"{who} was not done in {timeout_s:g} s") from error
    except subprocess.CalledProcessError as error:
        raise PerfAnalyzerUnavailable(f"{who} failed ({_last_line(error)})") from error


def _run(command: Sequence[str], timeout_s: float, environment: dict[str, str], folder: str | None = None) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=timeout_s,
        env=environment,
        cwd=folder,
    )
    return done.stdout


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = [line.strip() for line in error.stdout.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {error.returncode}"
