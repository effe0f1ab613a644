"""The rivals: how each is started, in the way that its documentation recommends, and how it is asked."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.framework.errors import NoSuchRival
from benchmarks.harness.served import served, with_cache
from benchmarks.peers.environments import RivalUnavailable, pinned_version, set_up
from benchmarks.peers.processes import Processes, free_port, started
from benchmarks.peers.server import (
    BATCHED,
    HEADS_SIDE,
    ON_OPENVINO,
    ONE_AT_A_TIME,
    SAME,
    SEPARATE,
    SEPARATE_SIDE,
    SHARED,
    Endpoint,
    Rival,
    RivalServer,
    count_lines,
)
from benchmarks.peers.tritons import awake_at_the_end, espalier_endpoints, triton_rivals
from benchmarks.peers.wires import Form, RawBody, V2Grpc
from benchmarks.peers.work import Work
from serving.engines.openvino.agreement import BF16_ALLOWED
from serving.engines.openvino.package import has_bf16

APPS = Path(__file__).with_name("apps")
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True"}


def all_rivals() -> list[Rival]:
    """Return every rival in every variant, ours first."""
    kinds = {SEPARATE: "separate", SHARED: "shared"}
    ours = version("espalier")
    rivals = [
        Rival("espalier", SHARED, ours, partial(_espalier, ())),
        Rival("espalier", ONE_AT_A_TIME, ours, partial(_espalier, ("--instances", "1"))),
        *(Rival(ON_OPENVINO, f"{SHARED}, {precision}", ours, partial(_openvino, precision)) for precision in ("fp32", "bf16")),
    ]
    rivals += triton_rivals()
    by_hand = {**kinds, SEPARATE_SIDE: "separate_side", HEADS_SIDE: "shared_side"}
    rivals += [
        Rival("FastAPI by hand", variant, version("fastapi"), partial(_fastapi, kind)) for variant, kind in by_hand.items()
    ]
    for name, package, serve, own_kinds in (
        ("LitServe", "litserve", _litserve, {**kinds, BATCHED: "batched"}),
        ("BentoML", "bentoml", _bentoml, {**kinds, BATCHED: "batched"}),
        ("MLServer", "mlserver", _mlserver, kinds),
        ("Ray Serve", "ray", _ray, kinds),
    ):
        pinned = pinned_version(package)
        rivals += [Rival(name, variant, pinned, partial(serve, kind), package) for variant, kind in own_kinds.items()]
    return rivals


def choose_rivals(words: Sequence[str]) -> list[Rival]:
    """Return the rivals that one of `words` names, in any case: as a whole, or else by a part of name or variant; all without words.

    Raises NoSuchRival.
    """
    rivals = all_rivals()
    names = dict.fromkeys(rival.name for rival in rivals)
    chosen: list[Rival] = []
    for word in map(str.lower, words):
        whole = [rival for rival in rivals if word == rival.name.lower()]
        part = [rival for rival in rivals if word in f"{rival.name}, {rival.variant}".lower()]
        if not part:
            raise NoSuchRival(word, names)
        chosen += whole or part
    return [rival for rival in rivals if not words or rival in chosen]


@contextlib.contextmanager
def _openvino(precision: str, work: Work, threads: int) -> Iterator[RivalServer]:
    if find_spec("openvino") is None:
        raise RivalUnavailable("openvino is not installed")
    if precision == "bf16" and not has_bf16():
        raise RivalUnavailable("this processor does not compute in bf16")
    with _espalier(("--engine", "openvino", "--precision", precision), work, threads) as server:
        allowed = BF16_ALLOWED if precision == "bf16" else SAME
        yield replace(server, endpoints=[replace(endpoint, allowed=allowed) for endpoint in server.endpoints])


@contextlib.contextmanager
def _espalier(options: Sequence[str], work: Work, threads: int) -> Iterator[RivalServer]:
    own = "-".join(("espalier", *options)).replace("--", "")  # one that two of them map would count by halves
    cache = with_cache(work.repository.path.parent / own)
    with (
        served(work.repository.path, "--threads", str(threads), *options, environment=cache) as process,
        awake_at_the_end(Processes(process.pid)) as processes,
    ):
        yield RivalServer(processes, espalier_endpoints(process, work), 0)


def _fastapi(kind: str, work: Work, threads: int) -> AbstractContextManager[RivalServer]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"fastapi_{kind}:app", "--port", str(port), "--log-level", "warning"]
    return _app(command, [APPS / f"fastapi_{kind}.py"], work, threads, Endpoint("HTTP", RawBody(), port))


def _litserve(kind: str, work: Work, threads: int) -> AbstractContextManager[RivalServer]:
    file, python = APPS / f"litserve_{kind}.py", set_up("litserve") / "bin" / "python"
    return _app([str(python), str(file)], [file], work, threads, Endpoint("HTTP", Form(), free_port()))


def _bentoml(kind: str, work: Work, threads: int) -> AbstractContextManager[RivalServer]:
    port, program = free_port(), set_up("bentoml") / "bin" / "bentoml"
    command = [str(program), "serve", f"bentoml_{kind}:{kind.title()}", "--host", "127.0.0.1", "--port", str(port)]
    return _app(command, [APPS / f"bentoml_{kind}.py"], work, threads, Endpoint("HTTP", Form(), port))


def _mlserver(kind: str, work: Work, threads: int) -> AbstractContextManager[RivalServer]:
    folder, port, program = APPS / f"mlserver_{kind}", free_port(), set_up("mlserver") / "bin" / "mlserver"
    files = [folder / "runtime.py", folder / "model-settings.json"]
    ports = {"HTTP": free_port(), "GRPC": port, "METRICS": free_port()}
    variables = {f"MLSERVER_{name}_PORT": str(value) for name, value in ports.items()}
    variables |= {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_METRICS_DIR": tempfile.gettempdir(), "MLSERVER_DEBUG": "false"}
    endpoint = Endpoint("gRPC", V2Grpc("image", as_bytes=True), port)
    return _app([str(program), "start", str(folder)], files, work, threads, endpoint, variables)


def _ray(kind: str, work: Work, threads: int) -> AbstractContextManager[RivalServer]:
    file, python = APPS / f"ray_{kind}.py", set_up("ray") / "bin" / "python"
    return _app([str(python), str(file)], [file], work, threads, Endpoint("HTTP", RawBody(), free_port()))


@contextlib.contextmanager
def _app(
    command: Sequence[str],
    files: Sequence[Path],
    work: Work,
    threads: int,
    endpoint: Endpoint,
    variables: dict[str, str] | None = None,
) -> Iterator[RivalServer]:
    """Run what a user has written in `files`."""
    variables = {"MODELS": str(work.models.absolute()), "THREADS": str(threads), "PORT": str(endpoint.port), **(variables or {})}
    with started(command, APPS, _QUIET | variables) as (processes, log):
        yield RivalServer(processes, [endpoint], count_lines(files), log.check)
