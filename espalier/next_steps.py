"""What one does next with a server that has just begun to answer: a line each to ask it, and to deploy to it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from contract.repository.model import Task

_USUAL = "127.0.0.1:8000"
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # and how this machine reaches one of them
_Kind = Literal["image", "text", "arrays"]


def next_steps(tasks: Mapping[str, Task], http_address: str, repo: Path, *, takes_loads: bool, page: bool) -> list[str]:
    """Return lines to be read on a terminal, commands of a shell in them. tasks: that are served at `http_address`, host:port, from `repo`.

    takes_loads: whether whoever has the token may have the server load tasks. page: whether there is one to try them on.
    """
    address = _reachable(http_address)
    option = "" if address == _USUAL else f" --url http://{address}"
    lines = []
    for kind, task in _asked(tasks).items():
        lines += [_infer_line(kind, task, option), _curl_line(kind, task, address)]
    marked = [f"  {'Ask:' if index == 0 else '':8}{line}" for index, line in enumerate(lines)]
    look = [f"  Look:   http://{address}/ in a browser"] if page else []
    return [*look, *marked, f"  Deploy: {_deploy_line(repo, address, takes_loads)}"]


def _asked(tasks: Mapping[str, Task]) -> dict[_Kind, Task]:
    """Return a task that takes images, and one that takes texts, as far as there are; else one that takes arrays."""
    found: dict[_Kind, Task] = {}
    for task in tasks.values():
        if task.answers.is_for_people and task.takes:
            found.setdefault(task.takes, task)
    if not found and tasks:
        found["arrays"] = next(iter(tasks.values()))
    return found


def _infer_line(kind: _Kind, task: Task, option: str) -> str:
    name = shlex.quote(task.name)
    if kind == "image":
        return f"espalier infer photo.jpg --task {name}{option}"
    if kind == "text":
        return f'espalier infer --text "A text." --task {name}{option}'
    arrays = " ".join(f"--array {shlex.quote(f'{spec.name}={spec.name}.npy')}" for spec in task.inputs)
    return f"espalier infer {arrays} --task {name}{option}"


def _curl_line(kind: _Kind, task: Task, address: str) -> str:
    if kind == "image":
        return f"curl --data-binary @photo.jpg {shlex.quote(f'http://{address}/predict?tasks={quote(task.name)}')}"
    if kind == "text":
        body = shlex.quote(f'{{"text": "A text.", "tasks": ["{task.name}"]}}')
        return f"curl -H 'Content-Type: application/json' -d {body} http://{address}/predict"
    return f"curl {shlex.quote(f'http://{address}/v2/models/{quote(task.name)}')}    # what it takes"


def _deploy_line(repo: Path, address: str, takes_loads: bool) -> str:
    if takes_loads:
        where = f"--to {shlex.quote(str(repo))} --url http://{address} --token-file FILE"
        return f"espalier deploy NAME=MODEL {where}"
    return "not allowed; --admin-token-file FILE here allows it, and --token-file FILE with `espalier deploy`; or ESPALIER_ADMIN_TOKEN."


def _reachable(address: str) -> str:
    """Return `address` as this machine reaches it."""
    host, _, port = address.rpartition(":")
    return f"{_ALL_ADDRESSES.get(host, host)}:{port}"
