"""Repositories that many tests only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.repository import Repository, read_repository
from tests.exporter.graphs import Net
from tests.exporter.test_export import export


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The smallest repository with a trunk and two branches."""
    return _exported(tmp_path_factory.mktemp("states") / "old", "alpha", "beta")


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Another one: some segments are the same, some are not."""
    return _exported(tmp_path_factory.mktemp("states") / "new", "beta", "gamma")


def _exported(path: Path, *tasks: str) -> Repository:
    export(path, {task: Net(blocks=(1,), head=ord(task[0])) for task in tasks}, backbone=None)
    return read_repository(path)
