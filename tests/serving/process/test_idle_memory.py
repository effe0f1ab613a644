"""After a peak, memory that is free goes back to the system, in a moment in which nothing is asked."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# In a process of its own: what is free in the heap of one that has done other things, and goes back by itself, is anybody's guess.
PEAK = """
import asyncio
from serving.process import memory
from serving.process.memory import give_back_in_idle_moments, resident_bytes
memory._LOOK_S, memory._REST_S = 0.01, 0.05
idle = False
async def work():
    global idle
    giving = asyncio.create_task(give_back_in_idle_moments(lambda: idle))
    await asyncio.sleep(0.05)
    before = resident_bytes()
    pieces = [b"x" * 100_000 for _ in range(2000)]  # too small to be mapped by themselves
    kept = pieces[::100]  # between them, so that the rest is no end of the heap
    pieces.clear()
    await asyncio.sleep(0.1)
    print(resident_bytes() - before >> 20)
    idle = True
    for _ in range(500):
        if resident_bytes() - before < 50 << 20:
            break
        await asyncio.sleep(0.01)
    print(resident_bytes() - before >> 20, len(kept))
    giving.cancel()
asyncio.run(work())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back by themselves, or not at all")
def test_what_a_peak_has_taken_is_given_back_when_nothing_is_asked() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    busy, idle, kept = map(int, done.stdout.split())
    assert busy > 100  # MiB: nothing is given back
    assert (idle < 50, kept) == (True, 20)
