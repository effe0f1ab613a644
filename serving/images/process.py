"""A process that decodes pictures for a server: it can be ended in the middle of one, and takes memory in proportion to its pixels.

Jobs come on its standard input, answers go to its standard output: two lengths, then JSON and bytes. It ends with its input.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from contract.preprocessing import Preprocessing
from serving.errors import NotAnImage, TooCostlyImage
from serving.images.decode import ImageLimits, Picture, open_picture, rows_of

_MAX_CPU_S = 60  # of processor time for a picture; the costliest that are let in take some ten seconds
_SPARE_BYTES = 64 * 1024 * 1024  # beyond what follows from a picture's size
_PIXEL_BYTES = (
    16  # of address space, some of which is never used: three buffers of 4 bytes, and as much as one for a decoder's own
)
_FILE_COPIES = 3
_LENGTHS = struct.Struct(">QQ")
_USAGE = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()
_Message = tuple[dict[str, Any], bytes]


def write_message(stream: IO[bytes], fields: Mapping[str, Any], data: bytes) -> None:
    """Write what `read_message` reads. Raises OSError when nobody reads it."""
    text = json.dumps(fields).encode()
    stream.write(_LENGTHS.pack(len(text), len(data)))
    stream.write(text)
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes]) -> _Message | None:
    """Return the next one; None when the stream ends before or in the middle of it."""
    start = stream.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        return None
    text_size, data_size = _LENGTHS.unpack(start)
    text, data = stream.read(text_size), stream.read(data_size)
    return (json.loads(text), data) if len(data) == data_size else None


def main() -> None:
    """Do jobs until the standard input ends, in a thread of its own, so that it is also seen while a picture is decoded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the server says when
    jobs: SimpleQueue[_Message] = SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        fields, made = _answer(*jobs.get())
        write_message(sys.stdout.buffer, fields, made)


def _read_jobs(jobs: SimpleQueue[_Message]) -> None:
    try:
        while (job := read_message(sys.stdin.buffer)) is not None:
            jobs.put(job)
    finally:
        os._exit(0)


def _answer(job: dict[str, Any], data: bytes) -> _Message:
    ways = [Preprocessing.from_json(text) for text in job["ways"]]
    where = job["where"]
    try:
        picture = open_picture("The file", data, where, ImageLimits(**job["limits"]))
        _limit_what_it_takes(picture, ways)
        made = rows_of(picture, ways)
    except NotAnImage as error:
        return {"error": str(error), "is_costly": isinstance(error, TooCostlyImage)}, b""
    finally:
        _set_limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)  # the next file may be larger
    return {"shapes": [rows.shape for rows in made]}, b"".join(rows.tobytes() for rows in made)


def _limit_what_it_takes(picture: Picture, ways: Sequence[Preprocessing]) -> None:
    """Have the system refuse memory and processor time that a picture of this size does not need."""
    pixels = picture.pixels + picture.resized_pixels(ways)
    extra = _PIXEL_BYTES * pixels + _FILE_COPIES * len(picture.file.data) + _SPARE_BYTES
    if _USAGE.exists():  # where it says so, the limit is also heeded
        _set_limit(resource.RLIMIT_AS, _address_space_bytes() + extra)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _MAX_CPU_S)


def _set_limit(what: int, soft: int) -> None:
    """Set the limit (RLIM_INFINITY: none), as far as the one lets it that this process was begun with."""
    hard = resource.getrlimit(what)[1]
    none = resource.RLIM_INFINITY
    resource.setrlimit(what, (hard if soft == none else soft if hard == none else min(soft, hard), hard))


def _address_space_bytes() -> int:
    return int(_USAGE.read_text("ascii").split()[0]) * _PAGE_BYTES


if __name__ == "__main__":
    main()
