"""Tries foreign ONNX files out in a process of their own, before this one takes them apart.

onnx's checker and shape inference are C++, written for well-formed models: a few wrong bytes make them abort, run for ever or take all
memory, which no `except` catches. Everything that is done to a file before it is split is done there first, under limits; what ends
that process gets a sentence here. (Found by fuzzing: a Split with more outputs than it says, a Range of 2**61 numbers.)
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.errors import BadModel, ExportError, RefusedModel
from exporter.sources.guard import analyse
from exporter.sources.limits import limited_memory
from exporter.sources.onnx_file import load_onnx

CPU_SECONDS = 120  # per file; a network of 1,000 nodes takes about one
SPARE_BYTES, COPIES = 2**30, 3  # memory to analyse a file: this, and so many times its weights
# Not `-m`: that would look for this package in the working directory first.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from exporter.sources.sandbox import main; main()"


def preflight(files: Sequence[Path]) -> None:
    """Raise ExportError for the first of `files` that cannot be read and split, whatever goes wrong there."""
    for error in examine(files):
        if error is not None:
            raise error


def examine(files: Sequence[Path]) -> Iterator[ExportError | None]:
    """Yield, for each of `files` in turn, why it cannot be read and split, or None. No file crashes this process."""
    done = 0
    while done < len(files):
        run = _run(files[done:])
        answers = run.stdout.splitlines()
        for answer in answers:
            sentence = json.loads(answer)
            yield RefusedModel(sentence) if sentence else None
        done += len(answers)
        if done < len(files):
            yield BadModel(files[done], _describe_end(run))
            done += 1


def main() -> None:
    """Answer for each file named on stdin (JSON, one a line) with a line: null, or why it is refused."""
    for line in sys.stdin.read().splitlines():
        print(json.dumps(_try_out(Path(json.loads(line)))), flush=True)


def _run(files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _START, json.dumps(sys.path)]
    lines = "".join(f"{json.dumps(str(path))}\n" for path in files)
    return subprocess.run(command, input=lines, capture_output=True, text=True, check=False)


def _describe_end(run: subprocess.CompletedProcess[str]) -> str:
    if -run.returncode == signal.SIGXCPU:
        return f"takes more than {CPU_SECONDS} s to analyse; its graph is damaged or far too large."
    if run.returncode < 0:
        return f"crashes the ONNX library that reads it ({signal.Signals(-run.returncode).name}); its graph is damaged, export it anew."
    return f"cannot be read ({(run.stderr.strip().splitlines() or ['no reason given'])[-1]})."


def _try_out(path: Path) -> str | None:
    _limit_time()
    try:
        model = load_onnx(path)
        weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
        with limited_memory(SPARE_BYTES + COPIES * weights):
            analyse(str(path), model)
    except ExportError as error:
        return str(error)
    return None


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_SECONDS, hard))


if __name__ == "__main__":
    main()
