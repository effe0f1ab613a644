"""`espalier serve` that notes the longest processor time of one callback in its event loop.

`python -m benchmarks.studies.hostile.watched FILE serve ...` notes it in FILE.
It runs on asyncio's own loop: uvloop's callbacks cannot be watched from Python.
"""

from __future__ import annotations

import asyncio
import mmap
import runpy
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from serving.process.memory import malloc_trim

_LAYOUT = struct.Struct("<d?247s")
_TIDY_AT = 8  # the place of the flag
_LOOK_S = 0.01
_MOST_LOOKS = 1000


class LongestStand:
    """The longest callback since the last `forget`, in a file that two processes have open: the server's and whoever measures it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return float(_LAYOUT.unpack_from(self._memory)[0])

    @property
    def what(self) -> str:
        """Return what took so long."""
        return bytes(_LAYOUT.unpack_from(self._memory)[2]).rstrip(b"\0").decode("utf-8", "replace")

    def note(self, seconds: float, what: str) -> None:
        """Keep it."""
        _LAYOUT.pack_into(self._memory, 0, seconds, False, what.encode()[:247])

    def forget(self) -> None:
        """Begin anew, when the server has given back what memory it has free: else the next request finds it, and seems to take none."""
        self._memory[_TIDY_AT] = 1
        for _ in range(_MOST_LOOKS):
            if not self._memory[_TIDY_AT]:
                break
            time.sleep(_LOOK_S)
        _LAYOUT.pack_into(self._memory, 0, 0.0, False, b"")

    def tidy_for_ever(self) -> None:
        """Give memory back whenever `forget` asks for it: a thread's life, in the server."""
        while True:
            time.sleep(_LOOK_S)
            if self._memory[_TIDY_AT]:
                malloc_trim()
                self._memory[_TIDY_AT] = 0


def _watch(longest: LongestStand) -> None:
    """Have every callback of the server's loop measured, in processor time of its thread."""
    run: Any = asyncio.events.Handle._run

    def measured(handle: Any) -> None:
        if threading.current_thread().name != "espalier-server":
            run(handle)
            return
        started = time.thread_time()
        run(handle)
        seconds = time.thread_time() - started
        if seconds > longest.seconds:
            longest.note(seconds, repr(handle))

    asyncio.events.Handle._run = measured  # type: ignore[method-assign, assignment]


def main() -> None:
    """Serve, as the rest of the command line says."""
    longest = LongestStand(Path(sys.argv.pop(1)))
    _watch(longest)
    threading.Thread(target=longest.tidy_for_ever, daemon=True).start()
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    runpy.run_module("espalier.cli", run_name="__main__")


if __name__ == "__main__":
    main()
