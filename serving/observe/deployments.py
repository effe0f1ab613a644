"""What changes in the tasks that are served, told to the observer and to the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from contract.errors import EspalierError
from contract.repository.model import Task
from serving.observe.events import Observer

log = logging.getLogger("serving.deployments")
_Tasks = Mapping[str, Task]


@contextmanager
def observed(observer: Observer, action: str, name: str, served: Callable[[], _Tasks]) -> Iterator[None]:
    """Take the `with` block for an `action` ("load", "unload") on the task `name`, or on all_tasks, and tell how it went.

    served: returns the tasks that are served at the moment. The log has one line: the version that is served now (or was, of a task that
    is unloaded), seconds, and the reason of a failure, which is raised on.
    """
    started = time.perf_counter()
    before = served()
    try:
        yield
    except BaseException as error:
        seconds = time.perf_counter() - started
        _tell(observer, action, name, before.get(name), seconds, ok=False)
        _write(action, name, before.get(name), seconds, error)
        raise
    seconds = time.perf_counter() - started
    task = (served() if action == "load" else before).get(name)
    _tell(observer, action, name, task, seconds, ok=True)
    _write(action, name, task, seconds)


def _tell(observer: Observer, action: str, name: str, task: Task | None, seconds: float, *, ok: bool) -> None:
    observer.deployed(name, seconds, ok, action, "" if task is None else task.version)


def _write(action: str, name: str, task: Task | None, seconds: float, error: BaseException | None = None) -> None:
    versions = _versions(task)
    result = "done" if error is None else "failed"
    reason = "" if error is None else str(error) or type(error).__name__
    rest = "".join(f" {key}={value}" for key, value in versions.items()) + (f": {reason}" if reason else "")
    log.log(
        logging.WARNING if error else logging.INFO,
        "%s %s %s in %.3f s%s",
        *(action, name, result, seconds, rest),
        exc_info=error if error and _has_more_to_say(error) else None,
        extra={
            "fields": {
                "action": action,
                "model": name,
                "result": result,
                **versions,
                "seconds": round(seconds, 3),
                "reason": reason,
            }
        },
    )


def _versions(task: Task | None) -> dict[str, str | float]:
    """Return the current version of `task`, and its canary's with the share of the requests that it gets; nothing of no task."""
    if task is None:
        return {}
    if task.canary is None:
        return {"version": task.version}
    return {"version": task.version, "canary": task.canary.task.version, "share": task.canary.share}


def _has_more_to_say(error: BaseException) -> bool:
    """Return whether more is behind `error` than its sentence: what ONNX Runtime said, or a mistake of ours."""
    return not isinstance(error, EspalierError) or error.__cause__ is not None
