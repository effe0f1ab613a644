"""Faults at every step that a writer asks the system for."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from contract.repository.transaction import file_system

# What changes something on disk; what only reads fails like the step after it.
_STEPS = ("mkdir", "rename", "link", "symlink", "unlink", "rmdir", "fsync", "chmod")


class Killed(BaseException):
    """The process is gone: nothing that it would do afterwards is done."""


@contextmanager
def faults_at(step: int, error: BaseException, *, lasting: bool, can_exchange: bool = True) -> Iterator[list[str]]:
    """Raise `error` instead of system call number `step`, and, if `lasting`, of all after it. Yields the calls made so far.

    can_exchange False: the file system does not know how to exchange two folders.
    """
    calls: list[str] = []
    plain_open = io.open

    def count(name: str) -> None:
        calls.append(name)
        if len(calls) - 1 == step or (lasting and len(calls) > step):
            raise error

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count(name)
            return function(*arguments, **options)

        return call

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax"):
            return plain_open(file, mode, *arguments, **options)
        count("open")
        handle = plain_open(file, mode, *arguments, **options)
        try:
            count("write")  # the file is there, and empty
        except BaseException:
            handle.close()
            raise
        return handle

    def no_exchange(*paths: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_system, "exchange", wrapped("exchange", file_system.exchange if can_exchange else no_exchange))
        for name in _STEPS:
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        patch.setattr(fcntl, "flock", wrapped("flock", fcntl.flock))
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        yield calls
