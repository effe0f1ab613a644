"""What a server's process does with the memory that it starts with."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import gc, os, signal
from serving.engines.in_memory import InMemoryEngine
from serving.server import Server, run
from tests.serving.nets import LAYERS, make_repository
started = Server.start
async def start(self):
    assert not gc.isenabled()
    await started(self)
Server.start = start
def leave(*addresses):
    assert gc.isenabled()
    print(gc.get_freeze_count(), len(gc.get_objects()))
    os.kill(os.getpid(), signal.SIGTERM)
run(make_repository(), engine=InMemoryEngine(LAYERS), http_port=0, grpc_port=0, on_ready=leave)
"""


def test_what_a_server_starts_with_is_not_looked_through_for_garbage() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    frozen, others = map(int, done.stdout.split())
    assert frozen > 20 * others
