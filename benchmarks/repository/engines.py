"""The engines that are installed here, and the numbers in which they compute. To add one: a line in `_ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.framework.errors import NoSuchEngine
from contract.repository import Repository
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.providers import provider_works
from serving.engines.openvino.package import has_bf16
from serving.engines.sessions.runtime import Precision, RuntimeKind, SessionStoreOptions

AS_EXPORTED = "as exported"
_MakeEngine = Callable[[Repository, int, Path, int], Engine]


@dataclass(frozen=True)
class EngineChoice:
    """An engine and its precision, for people.

    make: of a repository, the threads of a run, a folder for what the engine keeps, and the runs at a time, 1: as the engine likes it.

    missing: returns why it cannot be measured here, "" where it can.
    """

    engine: str
    precision: str
    make: _MakeEngine
    missing: Callable[[], str] = lambda: ""

    @property
    def name(self) -> str:
        """Return both in words."""
        return f"{self.engine}, {self.precision}"


def _embedded(repository: Repository, store: SessionStoreOptions, at_a_time: int) -> Engine:
    return EmbeddedEngine(repository, options=EngineOptions(store, at_a_time if at_a_time > 1 else None, learn_rows=True))


def _onnxruntime(provider: str) -> _MakeEngine:
    def make(repository: Repository, threads: int, folder: Path, at_a_time: int) -> Engine:
        return _embedded(repository, SessionStoreOptions(threads, provider=provider, cache_folder=folder / "segments"), at_a_time)

    return make


def _without(provider: str) -> str:
    return "" if provider_works(provider) else f"ONNX Runtime has no {provider.upper()} here"


def _openvino(precision: Precision) -> _MakeEngine:
    def make(repository: Repository, threads: int, folder: Path, at_a_time: int) -> Engine:
        segments = folder / "segments"
        store = SessionStoreOptions(threads, cache_folder=segments, runtime=RuntimeKind.openvino, precision=precision)
        return _embedded(repository, store, at_a_time)

    return make


def _without_openvino(precision: Precision) -> str:
    if find_spec("openvino") is None:
        return "openvino is not installed"
    return "the processor does not compute in it" if precision is Precision.bf16 and not has_bf16() else ""


# The first is what all others are compared with; its sessions are those of the separate networks, too.
_ENGINES = (
    EngineChoice("ONNX Runtime", AS_EXPORTED, _onnxruntime("cpu")),
    EngineChoice("ONNX Runtime on CUDA", AS_EXPORTED, _onnxruntime("cuda"), lambda: _without("cuda")),
    EngineChoice("OpenVINO", AS_EXPORTED, _openvino(Precision.fp32), lambda: _without_openvino(Precision.fp32)),
    EngineChoice("OpenVINO", "bf16", _openvino(Precision.bf16), lambda: _without_openvino(Precision.bf16)),
)


def find_engines(words: Sequence[str] = (), engines: Iterable[EngineChoice] = _ENGINES) -> tuple[list[EngineChoice], list[str]]:
    """Return the engines that work here, the first and those others that have one of `words` in their names (without words: all).

    Then, why others do not, a sentence. Raises NoSuchEngine for a word that is in no name.
    """
    first, *others = engines
    for word in words:
        if not any(word.lower() in one.name.lower() for one in (first, *others)):
            raise NoSuchEngine(word, [one.name for one in (first, *others)])
    others = [one for one in others if not words or any(word.lower() in one.name.lower() for word in words)]
    missing = [f"{one.name} is left out: {reason}." for one in others if (reason := one.missing())]
    return [first, *(one for one in others if not one.missing())], missing
