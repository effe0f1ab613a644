"""The engines that are installed here, and the numbers in which they compute. To add one: a line in `_ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.framework.errors import NoSuchEngine
from contract.repository import Repository
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.providers import provider_works
from serving.engines.sessions import runtime
from serving.engines.sessions.runtime import SessionStoreOptions

AS_EXPORTED = "as exported"
_MakeEngine = Callable[[Repository, int, Path], Engine]


@dataclass(frozen=True)
class EngineChoice:
    """An engine and its precision, for people. make: of a repository, the threads of a run, and a folder for what the engine keeps.

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


def _onnxruntime(provider: str) -> _MakeEngine:
    def make(repository: Repository, threads: int, folder: Path) -> Engine:
        store = SessionStoreOptions(threads, provider=provider, cache_folder=folder / "segments")
        return EmbeddedEngine(repository, options=EngineOptions(store, learn_rows=True))

    return make


def _without(provider: str) -> str:
    return "" if provider_works(provider) else f"ONNX Runtime has no {provider.upper()} here"


def _choices(name: str) -> Mapping[str, Any]:
    """Return what engines of this process can be told to compute with, or in which precision, as far as this version has a choice."""
    found: Any = getattr(runtime, name, None)
    return {} if found is None else dict(found.__members__)


def _openvino(precision: str) -> _MakeEngine:
    def make(repository: Repository, threads: int, folder: Path) -> Engine:
        how = {"runtime": _choices("RuntimeKind")["openvino"], "precision": _choices("Precision")[precision]}
        store = SessionStoreOptions(threads, cache_folder=folder / "segments", **how)
        return EmbeddedEngine(repository, options=EngineOptions(store, learn_rows=True))

    return make


def _without_openvino(precision: str) -> str:
    if "openvino" not in _choices("RuntimeKind") or precision not in _choices("Precision"):
        return "this version has no such engine"
    if find_spec("openvino") is None:
        return "openvino is not installed"
    has_bf16 = import_module("serving.engines.openvino").has_bf16
    return "the processor does not compute in it" if precision == "bf16" and not has_bf16() else ""


# The first is what all others are compared with; its sessions are those of the separate networks, too.
_ENGINES = (
    EngineChoice("ONNX Runtime", AS_EXPORTED, _onnxruntime("cpu")),
    EngineChoice("ONNX Runtime on CUDA", AS_EXPORTED, _onnxruntime("cuda"), lambda: _without("cuda")),
    EngineChoice("OpenVINO", AS_EXPORTED, _openvino("fp32"), lambda: _without_openvino("fp32")),
    EngineChoice("OpenVINO", "bf16", _openvino("bf16"), lambda: _without_openvino("bf16")),
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
