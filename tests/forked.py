"""The exporter's process that tries ONNX files out, forked from one that has imported everything: a fresh one imports for a second."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["exporter.sources.sandbox", "pytest"])


def run(files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Do what exporter.sources.sandbox._run does, in a process of its own, too."""
    from exporter.sources import free_sizes

    lines = "".join(f"{json.dumps(str(path))}\n" for path in files)
    with TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        limits = free_sizes._LARGEST, free_sizes._LARGEST_SIDE  # which a test may have made less
        process = _CONTEXT.Process(target=_answer, args=(lines, limits, *streams))
        process.start()
        process.join()
        out, err = (stream.read_text() for stream in streams)
        return subprocess.CompletedProcess((), process.exitcode or 0, out, err)


def _answer(lines: str, limits: tuple[int, int], *streams: Path) -> None:
    from exporter.sources import free_sizes
    from exporter.sources.sandbox import main

    free_sizes._LARGEST, free_sizes._LARGEST_SIDE = limits
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.stdin = io.StringIO(lines)
    main()
