"""Every error of the benchmarks, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from contract.errors import EspalierError


class BenchmarkError(EspalierError):
    """Anything that a benchmark refuses or fails at, with one sentence for the user."""


class UnknownBenchmark(BenchmarkError):
    """A name that neither a benchmark nor a folder has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"There is no benchmark {name!r}, and no folder; give all, list, one of {', '.join(known)}, or a model repository: the folder "
            "that an export wrote, or one of ONNX models as Triton serves it."
        )


class UnknownPrecision(BenchmarkError):
    """Numbers that no benchmark knows."""

    def __init__(self, precision: str, known: Iterable[str]) -> None:
        super().__init__(
            f"There is no precision {precision!r}; give one or more of {', '.join(known)}, with commas between them."
        )


class OnlyInFp32(BenchmarkError):
    """Another precision for benchmarks that measure in fp32."""

    def __init__(self, benchmarks: Iterable[str], precise: Iterable[str]) -> None:
        names = ", ".join(benchmarks)
        super().__init__(f"Networks in fp32 alone are measured by {names}; give --precision to {', '.join(precise)}.")


class PrecisionUnavailable(BenchmarkError):
    """Numbers in which ONNX Runtime does not compute on this machine."""

    def __init__(self, precision: str, provider: str, reason: str) -> None:
        super().__init__(f"ONNX Runtime's {provider} opens no network in {precision} ({reason}); leave {precision} out.")


class NoSuchRival(BenchmarkError):
    """A word that is in no rival's name."""

    def __init__(self, word: str, known: Iterable[str]) -> None:
        super().__init__(f"No peer's name contains {word!r}; there are {', '.join(known)}.")


class NoSuchNetwork(BenchmarkError):
    """A word that is in the name of no network that is measured."""

    def __init__(self, word: str, known: Iterable[str]) -> None:
        super().__init__(f"No network's name contains {word!r}; there are {', '.join(known)}.")


class NothingToChoose(BenchmarkError):
    """A choice for a benchmark that measures all of it or nothing."""

    def __init__(self, name: str, choosing: Iterable[str]) -> None:
        super().__init__(f"--only does not go with {name}; give it with {' or '.join(choosing)}.")


class RunsAreFixed(BenchmarkError):
    """A number of runs for a benchmark that does not count in runs of its variants alone."""

    def __init__(self, name: str, counting: Iterable[str]) -> None:
        super().__init__(f"--runs does not go with {name}; give it with {' or '.join(counting)}.")


class NoSuchMeasurement(BenchmarkError):
    """A word that is in the name of nothing that a benchmark measures."""

    def __init__(self, word: str, known: Iterable[str]) -> None:
        super().__init__(f"No measurement's name contains {word!r}; there are {', '.join(known)}.")


class LinuxOnly(BenchmarkError):
    """A benchmark that puts processes to sleep and reads their memory by means of Linux."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The benchmark {name} runs on Linux only.")


class NotARecord(BenchmarkError):
    """A JSON file that no benchmark of this version has written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is no result of this version's benchmarks; move it elsewhere, or run its benchmark again.")


class ResultNotWritten(BenchmarkError):
    """The folder of the results cannot be written to."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The results cannot be written to {path} ({reason}); give --out a folder that can be written to.")


class NoSuchSize(BenchmarkError):
    """A number for a free size that no task has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        there = ", ".join(known)
        what = f"has a free size {name!r}" if name else "has a free size"
        super().__init__(f"No task that is measured {what}{f'; there are {there}' if there else '; all of them are fixed'}.")


class SizeOutside(BenchmarkError):
    """A size that a task does not take."""

    def __init__(self, task: str, name: str, size: int, least: int, most: int | None) -> None:
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        super().__init__(f"Task {task!r} takes {name.replace('_', ' ')} {limits}, not {size}.")


class TooManyRowsAtOnce(BenchmarkError):
    """More rows than a task takes in one request."""

    def __init__(self, task: str, rows: int, most: int) -> None:
        super().__init__(f"Task {task!r} takes {most} {'row' if most == 1 else 'rows'} at once, not {rows}.")


class NoSuchEngine(BenchmarkError):
    """A word that is in the name of no engine."""

    def __init__(self, word: str, known: Iterable[str]) -> None:
        super().__init__(f"No engine's name contains {word!r}; there are {'; '.join(known)}.")
