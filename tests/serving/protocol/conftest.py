from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.protocol.held_requests import Queue


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A server with one request at the gate, so that all others wait."""
    from tests.serving.protocol.held_requests import Gated, queue_before

    with queue_before(Gated()) as made:
        yield made
