from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.repository import Repository
from serving.engines.embedded import EmbeddedEngine
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, write_repository
from tests.serving.stand_in import StandIn


@pytest.fixture
def engine() -> InMemoryEngine:
    """The family of nets.py in numpy; `engine.runs` tells what ran."""
    return InMemoryEngine(LAYERS)


@pytest.fixture(scope="session")
def server(repository: Repository) -> Iterator[BackgroundServer]:
    """A real server on the embedded engine, one for the whole session."""
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as running:
        yield running


@pytest.fixture
def embedded(repository: Repository) -> EmbeddedEngine:
    return EmbeddedEngine(repository, threads=1)


@pytest.fixture(scope="module")
def shared_stand_in(repository: Repository) -> Iterator[StandIn]:
    """One that has loaded everything at its start, and loads nothing when asked."""
    with StandIn(repository.path, "none") as triton:
        yield triton


@pytest.fixture
def triton(shared_stand_in: StandIn) -> Iterator[StandIn]:
    """A stand-in for Triton, as if it were new."""
    yield shared_stand_in
    shared_stand_in.held.clear()
    shared_stand_in.refusals.clear()
    for record in (shared_stand_in.requests, shared_stand_in.parameters, shared_stand_in.loads):
        record.clear()
    for model in shared_stand_in.models.values():
        model.runs.clear()
    shared_stand_in.cancelled.clear()


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """A repository that may be changed, and of which a Triton loads what it is told."""
    return write_repository(tmp_path / "repo")
