"""After a peak, memory that is free goes back to the system, in a moment in which nothing is asked."""

from __future__ import annotations

import asyncio
import platform

import pytest

from serving import idle_memory
from serving.idle_memory import give_back_in_idle_moments, resident_bytes

MIB = 1 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back by themselves, or not at all")
def test_what_a_peak_has_taken_is_given_back_when_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_memory, "_LOOK_S", 0.01)
    monkeypatch.setattr(idle_memory, "_REST_S", 0.05)
    idle = False

    async def work() -> None:
        nonlocal idle
        giving = asyncio.create_task(give_back_in_idle_moments(lambda: idle))
        await asyncio.sleep(0.05)
        pieces = [b"x" * 100_000 for _ in range(2000)]  # too small to be mapped by themselves
        peak = resident_bytes()
        kept = pieces[::100]  # between them, so that the rest is no end of the heap
        pieces.clear()
        await asyncio.sleep(0.1)
        assert peak - resident_bytes() < 50 * MIB  # busy: nothing is given back
        idle = True
        for _ in range(500):
            if peak - resident_bytes() > 100 * MIB:
                break
            await asyncio.sleep(0.01)
        assert peak - resident_bytes() > 100 * MIB
        assert len(kept) == 20
        giving.cancel()

    asyncio.run(work())
