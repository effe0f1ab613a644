"""The environment of the local Triton: a virtual one of its own, made once per user from pins and shared by all processes.

    FOLDER/<key>/    a virtual environment with the wheel nvidia-pytriton (tritonserver and its Python backend), numpy and ONNX Runtime
    FOLDER/new-*     one that is being made, or what a killed process left of it, which the next one removes
    FOLDER/lock      held by whoever makes one

Its own, because Triton's Python backend needs numpy < 2 and espalier 2 or more. The key is a hash of the pins and of the Python that
it is made with. pip installs it, so pip's own configuration (PIP_*, pip.conf) says from where; no address is in any file of ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.private_folder import BY_ALL, make_private_folder
from contract.user_folders import cache_folder
from serving.local_triton.errors import TritonUnavailable

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_PYTHONS = ((3, 11), (3, 12))
_NEEDED_BYTES = 900_000_000  # 300 MB in the end, and what pip downloads and unpacks on the way
_GLIBC = (2, 35)

Say = Callable[[str], None]


@dataclass(frozen=True)
class TritonEnvironment:
    """An environment that is there, in `folder`."""

    folder: Path

    @property
    def packages(self) -> Path:
        """Return the folder of its packages."""
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    @property
    def server(self) -> Path:
        """Return the program tritonserver."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """Return the folder of Triton's Python backend, with the stub for this Python."""
        return self.packages / "pytriton" / "tritonserver" / "backends" / "python"

    def variables(self, outer: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables for tritonserver: those of `outer`, but for what would lead it to other packages.

        The stub is the Python interpreter as a library; it takes for its environment that of the first python3 on the path.
        """
        libraries = [str(self.packages / "nvidia_pytriton.libs"), str(_python_library().parent)]
        kept = {name: value for name, value in outer.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        return kept | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), outer.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [outer.get("LD_LIBRARY_PATH")])]),
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def default_folder() -> Path:
    """Return the folder for this user's environments. Raises TritonUnavailable."""
    base = cache_folder()
    if base is None:
        raise TritonUnavailable("this user has no home folder to keep it in; let XDG_CACHE_HOME name one")
    return base / "triton"


def set_up(folder: Path | None = None, say: Say = lambda sentence: None) -> TritonEnvironment:
    """Return the environment in `folder` (by default the user's), made now if it is not there. `say` is told what takes long.

    Safe to call from several processes at once: one makes it, the others wait. Raises TritonUnavailable; then nothing is left.
    """
    check_machine()
    folder = folder or default_folder()
    place = folder / _key()
    try:
        if not make_private_folder(folder, BY_ALL):  # what is in it is run
            raise TritonUnavailable(
                f"{folder} belongs to another user, or all may write into it; delete it, or set XDG_CACHE_HOME"
            )
        if not _is_whole(place):
            with _locked(folder / "lock", say):
                _make(place, say)
    except OSError as error:
        raise TritonUnavailable(f"{folder} cannot be written ({error.strerror or error})") from error
    return TritonEnvironment(place)


def check_machine() -> None:
    """Raise TritonUnavailable, saying what would be needed, where tritonserver from the wheel cannot run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise TritonUnavailable(f"its wheel is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC:
        raise TritonUnavailable(
            f"its wheel needs glibc {'.'.join(map(str, _GLIBC))} or newer, and this system has {name} {version}"
        )
    if sys.version_info[:2] not in _PYTHONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
        raise TritonUnavailable(f"it needs Python {wanted}, and this is {platform.python_version()}")
    if not _python_library().is_file():
        raise TritonUnavailable(f"it needs Python as a shared library, and there is no {_python_library()}")


def _python_library() -> Path:
    return Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "")


def _key() -> str:
    facts = (_REQUIREMENTS.read_text(), platform.python_version(), sys.base_prefix)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _is_whole(place: Path) -> bool:
    """It appeared by a rename, so it is whole if its Python is still there."""
    return (place / "bin" / "python3").exists()


@contextmanager
def _locked(file: Path, say: Say) -> Iterator[None]:
    with file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is setting up Triton; waiting for it to end.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(place: Path, say: Say) -> None:
    """Make the environment `place`, unless somebody did meanwhile. The lock is held."""
    if _is_whole(place):
        return
    for left in place.parent.glob("new-*"):
        shutil.rmtree(left)
    if shutil.disk_usage(place.parent).free < _NEEDED_BYTES:
        raise TritonUnavailable(f"setting it up needs {_NEEDED_BYTES // 10**6} MB of disk space in {place.parent}")
    say("Setting up Triton 24.10: about 95 MB to download and 300 MB on disk, once.")
    new = place.parent / f"new-{os.getpid()}"  # made by hand, as temporary folders are for their owner alone
    new.mkdir()
    try:
        _install(new)
        _put_stub(TritonEnvironment(new))
        if place.exists():
            shutil.rmtree(place)
        new.rename(place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _install(folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"]
    _run([*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(_REQUIREMENTS)], "pip")


def _run(command: list[str], name: str) -> None:
    outer = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=outer)
    if done.returncode:
        raise TritonUnavailable(
            f"{name} failed ({_first_error(done.stderr + done.stdout)}), which needs a network, or pip configured with an index or a "
            "folder that has the packages"
        )


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[-1:] or ["it said nothing"])[0].rstrip(".")


def _put_stub(environment: TritonEnvironment) -> None:
    """Put the stub for this Python beside the Python backend, where Triton looks for it, and let both programs be run."""
    stub = "triton_python_backend_stub"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    source = environment.server.parents[1] / "python_backend_stubs" / version / stub
    shutil.copyfile(source, environment.python_backend / stub)
    for program in (environment.server, environment.python_backend / stub):
        program.chmod(0o755)
