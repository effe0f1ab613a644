"""One virtual environment per rival, made once per user from pins: rivals need versions that exclude each other, and ours.

    FOLDER/<rival>-<key>/    a virtual environment; the key is a hash of the pins and of the Python that it is made with
    FOLDER/<rival>-<key>/whole   it is all there, and not what a killed process has left

pip installs it, so pip's own configuration says from where; no address is in any file of ours.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving.local_triton.environment import default_folder as triton_folder

REQUIREMENTS = Path(__file__).with_name("requirements")
_WHOLE = "whole"

_Say = Callable[[str], None]


class RivalUnavailable(Exception):
    """A rival cannot be installed or started here. The message says why, in a sentence."""


def _default_folder() -> Path:
    """Return the folder for this user's environments of rivals, beside Triton's."""
    return triton_folder().with_name("peers")


def set_up(rival: str, folder: Path | None = None, say: _Say = lambda sentence: None) -> Path:
    """Return the folder of the environment of `rival` in `folder` (by default the user's), made now if it is not there.

    Raises RivalUnavailable; then nothing is left. Not for several processes at once.
    """
    folder = folder or _default_folder()
    pins = REQUIREMENTS / f"{rival}.txt"
    key = hashlib.sha256("\n".join((pins.read_text(), platform.python_version(), sys.base_prefix)).encode()).hexdigest()[:16]
    place = folder / f"{rival}-{key}"
    if not (place / _WHOLE).exists():
        say(f"Setting up {rival}, once, in {place}.")
        folder.mkdir(parents=True, exist_ok=True)
        _make(place, pins)
    return place


def _make(place: Path, pins: Path) -> None:
    """Make the folder where it stays, since the programs in it name its path."""
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(place)], "python -m venv")
        install = [
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--retries",
            "1",
            "--no-deps",
            "-r",
            str(pins),
        ]
        _run([str(place / "bin" / "python"), *install], "pip")
        (place / _WHOLE).touch()
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _run(command: list[str], name: str) -> None:
    outer = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    with tempfile.TemporaryFile("w+") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False, env=outer).returncode
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    if code:
        raise RivalUnavailable(
            f"{name} failed: {next((line for line in lines if line.startswith('ERROR')), (lines or ['?'])[-1])}"
        )


def pinned_version(rival: str) -> str:
    """Return the version of the package `rival` in its pins."""
    lines = (REQUIREMENTS / f"{rival}.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.split("==")[0].split("[")[0] == rival)
