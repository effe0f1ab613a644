"""Two real Tritons that can be killed, and servers in front of them."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.repository import Repository
from serving.client import control_model
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.local_triton.command import TritonOptions
from serving.local_triton.local import LocalTriton
from serving.server import BackgroundServer
from tests.serving.protocol.held_requests import wait_for

TOKEN = "s3cret"


class Pair:
    """Two Tritons that have nothing but what they are sent, each on ports that it keeps when it is started again."""

    def __init__(self, empty: Path) -> None:
        self._empty = empty
        self.tritons = [LocalTriton(empty, TritonOptions(model_control="explicit", exit_s=2)) for _ in range(2)]
        self._is_dead = [True, True]

    @property
    def urls(self) -> str:
        return ",".join(triton.grpc_url for triton in self.tritons)

    def start(self) -> None:
        """Start those that were killed, and at first both."""
        for place, triton in enumerate(self.tritons):
            if self._is_dead[place]:
                self.tritons[place] = _again(self._empty, triton)
                self._is_dead[place] = False

    def kill(self, place: int) -> None:
        self.tritons[place].kill()
        self._is_dead[place] = True

    def stop(self) -> None:
        for triton, is_dead in zip(self.tritons, self._is_dead, strict=True):
            if not is_dead:
                triton.stop()


def _again(empty: Path, before: LocalTriton) -> LocalTriton:
    _, grpc_port = before.addresses.grpc.split(":")  # 0, any, of one that was never started
    triton = LocalTriton(empty, TritonOptions(model_control="explicit", exit_s=2, grpc_port=int(grpc_port)))
    triton.start(60)
    return triton


@contextmanager
def closed(gate: Path) -> Iterator[None]:
    """Have models with this `gate` compute nothing until the block ends: what they are given waits in Triton."""
    gate.touch()
    try:
        yield
    finally:
        gate.unlink()


def metric(triton: LocalTriton | Served, name: str, model: str, **labels: str) -> int:
    """Return one of Triton's metrics of `model`, from a Triton itself or from a server; 0 when it does not say."""
    address = triton.http_address if isinstance(triton, Served) else triton.addresses.metrics
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{address}/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    wanted = {f'{label}="{value}"' for label, value in {"model": model, **labels}.items()}
    found = (re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line) for line in lines)
    return sum(int(float(match[2])) for match in found if match and wanted <= {*match[1].split(",")})


class Served(BackgroundServer):
    """A server in front of Tritons, which may be told to load. engine: what it computes with."""

    engine: TritonEngine

    def __init__(self, repository: Path, urls: str, **options: Any) -> None:
        def make_engine(found: Repository) -> TritonEngine:
            self.engine = TritonEngine(found, urls, TritonEngineOptions(send_files=True, wait_s=20, **options))
            return self.engine

        super().__init__(repository, http_port=0, grpc_port=0, admin_token=TOKEN, make_engine=make_engine)

    def uses(self, tritons: int) -> None:
        """Return when it has let in so many Tritons."""
        wait_for(lambda: len(self.engine._fleet.servers) == tritons)  # type: ignore[union-attr]

    def load(self, task: str) -> None:
        control_model(f"http://{self.http_address}", task, "load", TOKEN, timeout_s=20)
