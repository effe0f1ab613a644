"""States of a repository to change between, and how to compare them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from contract.repository import Repository, read_repository
from contract.repository.write import Change, changed, model_path, write_configs, written

State = dict[str, str]


def state(folder: Path) -> State:
    """Return the digest of every file, and the mark of every folder; nothing of a folder that is not there."""
    paths = (path for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): _digest(path) for path in paths} if folder.exists() else {"": "missing"}


def replace_with(repo: Path, source: Repository) -> None:
    """Write `source` at `repo` as an export does, whatever stood there."""
    with written(repo, force=True) as folder:
        build(folder, source)


def build(folder: Path, source: Repository) -> None:
    for name in source.segments:
        model_path(folder, name).write_bytes(source.model_file(name).read_bytes())
    write_configs(folder, source.segments, source.tasks, source.cuts_left_out, source.cut_rule)


def rewrite(repo: Path) -> None:
    """Change nothing, but through a change."""
    with changed(repo) as change:
        keep_all(change)


def keep_all(change: Change) -> None:
    for name in (*change.repository.segments, *change.repository.tasks, "all_tasks"):
        change.keep(name)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_whole(repo: Path) -> bool:
    return bool(read_repository(repo).tasks)


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
