"""Processes that decode the costly pictures: begun when there is one, ended when nobody wants it, and when there is none for a while."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from contract.preprocessing import Preprocessing
from serving.errors import NotAnImage, TooCostlyImage
from serving.images.decode import ImageLimits, Picture, as_rows
from serving.images.process import read_message, write_message
from serving.images.tasks import ImageRows
from serving.process.work_pool import Cancellation, NotWanted

IDLE_S = 30.0
_COMMAND = [sys.executable, "-P", "-m", "serving.images.process"]
_OUT_OF_BOUNDS = (-signal.SIGXCPU, -signal.SIGKILL)  # the second: the system is out of memory
log = logging.getLogger(__name__)


class Helper:
    """One process. To be used by one thread at a time; `end` may be called from any."""

    def __init__(self) -> None:
        # It imports from where we do, uses one thread, knows no token, and no signal of our terminal reaches it.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
        more = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ours | more, start_new_session=True
        )
        self.idle_since = 0.0  # time.monotonic
        self._is_broken = False

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it can do another job."""
        return not self._is_broken and self._process.poll() is None

    def rows(self, picture: Picture, ways: Sequence[Preprocessing], limits: ImageLimits) -> list[NDArray[np.uint8]]:
        """Do as `images.rows_of`. Raises NotAnImage."""
        job = {"where": picture.where, "ways": [way.to_json() for way in ways], "limits": asdict(limits)}
        try:
            write_message(_pipe(self._process.stdin), job, picture.file.data)
            answer = read_message(_pipe(self._process.stdout))
        except OSError:
            answer = None
        if answer is None:
            raise self._failure(picture)
        fields, data = answer
        if "error" in fields:
            raise TooCostlyImage(picture.where) if fields["is_costly"] else NotAnImage(fields["error"])
        return _arrays(fields["shapes"], data)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._is_broken = True
        self._process.kill()

    def close(self) -> None:
        """End it and let go of what it took."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet
                _pipe(pipe).close()
        self._process.wait()

    def _failure(self, picture: Picture) -> NotAnImage:
        was_ended = self._is_broken
        self.end()
        code = self._process.wait()
        if not was_ended:
            log.warning("A process that decoded a picture has ended with %d.", code)
        if code in _OUT_OF_BOUNDS:
            return TooCostlyImage(picture.where)
        return NotAnImage(f"The {picture.file.format} image{picture.where} makes its decoder fail; save the picture again.")


class Helpers:
    """As many processes as are used at a time, and those that were until a while ago. limits: of the pictures."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: list[Helper] = []  # guarded by `_lock`, as the next one
        self._is_closed = False

    def rows(self, pictures: list[Picture], ways: Sequence[Preprocessing], cancellation: Cancellation) -> ImageRows:
        """Do as `images.make_rows`; the process is ended when the work is cancelled. Raises NotAnImage, NotWanted."""
        helper = self._take()
        made = []
        try:
            with cancellation.ending(helper.end):
                while pictures:
                    made.append(helper.rows(pictures.pop(0), ways, self._limits))
        except NotAnImage:
            cancellation.check()  # then it is no wonder
            raise
        finally:
            self._give(helper)
        return as_rows(made, ways)

    def end_idle(self, idle_s: float) -> None:
        """End the processes that nobody has used for so many seconds."""
        before = time.monotonic() - idle_s
        with self._lock:
            ended = [helper for helper in self._idle if helper.idle_since <= before]
            self._idle = [helper for helper in self._idle if helper not in ended]
        for helper in ended:
            helper.close()

    def close(self) -> None:
        """End the processes that nobody uses, and begin no more."""
        with self._lock:
            self._is_closed = True
        self.end_idle(0.0)

    def _take(self) -> Helper:
        with self._lock:
            if self._is_closed:
                raise NotWanted
            while self._idle:
                helper = self._idle.pop()
                if helper.is_usable:
                    return helper
                helper.close()
            return Helper()

    def _give(self, helper: Helper) -> None:
        helper.idle_since = time.monotonic()
        with self._lock:
            is_kept = helper.is_usable and not self._is_closed
            if is_kept:
                self._idle.append(helper)
        if not is_kept:
            helper.close()


def _arrays(shapes: Sequence[Sequence[int]], data: bytes) -> list[NDArray[np.uint8]]:
    values = np.frombuffer(data, np.uint8)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), shapes, strict=True)]


def _pipe(stream: IO[bytes] | None) -> IO[Any]:
    if stream is None:
        raise OSError("no pipe")
    return stream
