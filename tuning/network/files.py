"""Our files: safetensors with one JSON text in the header. Written aside and renamed, so that a file is whole or absent. No pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contract.user_folders import cache_folder as user_cache_folder
from tuning.errors import BadCheckpoint, CannotWrite, NoUserCacheFolder


def cache_folder() -> Path:
    """Return the user's cache folder for espalier. Raises NoUserCacheFolder."""
    folder = user_cache_folder()
    if folder is None:
        raise NoUserCacheFolder
    return folder


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` and `metadata` to `path`, replacing a file that is there. Raises CannotWrite."""
    if not path.parent.is_dir():
        raise CannotWrite(path, f"the folder {path.parent} does not exist")
    if path.is_dir():
        raise CannotWrite(path, "it is a folder, not a file name")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode  # as the user's umask has it; safetensors makes files for their owner alone
        # Clones, because tensors that share memory (tied weights) are refused by the format.
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, aside, dict(metadata))
        aside.chmod(mode)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        raise CannotWrite(path, str(error)) from error
    finally:
        aside.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the header's metadata; tensors are not read. Raises BadCheckpoint unless it is a whole safetensors file."""
    _require_file(path)
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(path, _damage(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, on the CPU. Raises BadCheckpoint."""
    _require_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(path, _damage(error)) from error


def _require_file(path: Path) -> None:
    if not path.exists():
        raise BadCheckpoint(path, "there is no such file")
    if not path.is_file():
        raise BadCheckpoint(path, "this is not a file")


def _damage(error: Exception) -> str:
    return f"not a safetensors file, or a truncated one ({error})"
