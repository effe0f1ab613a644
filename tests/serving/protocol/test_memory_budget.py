"""The bytes of requests that are held: counted while they are, never more than the limit, and none when nobody asks any more."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from contract.errors import InvalidRequest
from contract.system import available_memory_bytes, cgroup_memory_bytes
from espalier.commands.options.sizes import parse_limit
from serving.errors import BodyTooLarge, QueueFull
from serving.protocol.http.body import read_body
from serving.protocol.memory_budget import MemoryBudget, default_budget_bytes

LIMIT = 100
MOST_BODY = 60


class Client:
    """Sends a body piece by piece when it is told to, and then does as `end` says."""

    def __init__(self, pieces: Sequence[bytes], end: str) -> None:
        self.end = end
        self._pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        self._go = asyncio.Semaphore(0)

    async def receive(self) -> Any:
        await self._go.acquire()
        if self._pieces:
            return self._pieces.pop(0)
        if self.end == "hangs up":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    def step(self) -> None:
        self._go.release()

    async def request(self, pending: MemoryBudget, headers: dict[str, str]) -> int:
        """Be the server, as the endpoints are: read, then compute for one step more."""
        with pending.reserve() as hold:
            body = await read_body(headers, self.receive, MOST_BODY, hold)
            await self._go.acquire()
            if self.end == "fails":
                raise RuntimeError
            return len(body)


ENDS = ("is answered", "hangs up", "is cancelled", "fails", "is compressed", "is no gzip")
OWN_ENDS: dict[str, type[BaseException]] = {
    "hangs up": ClientDisconnect,
    "is cancelled": asyncio.CancelledError,
    "fails": RuntimeError,
    "is no gzip": InvalidRequest,
}
client_plans = st.tuples(st.lists(st.integers(0, 40), max_size=4), st.sampled_from(ENDS), st.booleans())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(client_plans, min_size=1, max_size=6), st.integers(0, 999))
def test_no_more_than_the_limit_is_held_and_nothing_at_the_end_however_it_ends(plans: Any, seed: int) -> None:
    pending = MemoryBudget(LIMIT)
    rng = random.Random(seed)  # what unpacks is in a thread: nobody knows how many steps there will be

    async def go() -> list[Any]:
        clients, tasks = [], []
        for sizes, end, declares in plans:
            body = b"x" * sum(sizes)
            pieces = [gzip.compress(body)] if end == "is compressed" else [b"x" * size for size in sizes]
            headers = {"content-encoding": "gzip"} if end in ("is compressed", "is no gzip") else {}
            headers |= {"content-length": str(sum(map(len, pieces)))} if declares else {}
            clients.append(Client(pieces, end))
            tasks.append(asyncio.ensure_future(clients[-1].request(pending, headers)))
        while not all(task.done() for task in tasks):
            place = rng.randrange(len(clients))
            if clients[place].end == "is cancelled" and rng.random() < 0.2:
                tasks[place].cancel()
            clients[place].step()
            await asyncio.sleep(0)
            assert 0 <= pending.bytes <= LIMIT
        return await asyncio.gather(*tasks, return_exceptions=True)

    for (sizes, end, _), found in zip(plans, asyncio.run(go()), strict=True):
        if isinstance(found, int):
            assert (found, end in ("is answered", "is compressed", "is cancelled")) == (sum(sizes), True)
        else:
            assert isinstance(found, (QueueFull, BodyTooLarge, OWN_ENDS.get(end, QueueFull))), (end, found)
    assert pending.bytes == 0


def test_what_does_not_fit_is_refused_before_it_is_sent_and_the_only_one_is_not() -> None:
    pending = MemoryBudget(LIMIT)
    with pending.reserve() as first, pending.reserve() as second:
        first.resize(10 * LIMIT)  # alone
        with pytest.raises(QueueFull, match=r"^1000 bytes of requests are waiting and 100 is the limit; try again later\.$"):
            second.resize(1)
        first.resize(70)
        second.resize(30)
        assert pending.bytes == 100
        with pytest.raises(QueueFull):
            second.expect(31)
        with pytest.raises(QueueFull):
            first.resize(71)
        assert pending.bytes == 100
    assert pending.bytes == 0
    with MemoryBudget().reserve() as first:  # without a limit
        first.resize(10**15)


def test_a_promise_is_looked_at_and_takes_nothing() -> None:
    pending = MemoryBudget(LIMIT)

    async def receive() -> Any:
        raise AssertionError("nothing should be read")

    async def promise(size: int) -> None:
        with pending.reserve() as hold:
            await read_body({"content-length": str(size)}, receive, 1000, hold)

    with pending.reserve() as other:
        other.resize(60)
        with pytest.raises(QueueFull):
            asyncio.run(promise(41))
        with pytest.raises(AssertionError):
            asyncio.run(promise(40))
        assert pending.bytes == 60


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 0),
        ({"memory.max": "max"}, 0),
        ({"pod/memory.max": "4096", "pod/app/memory.max": "8192"}, 4096),
        ({"memory.max": "max", "pod/app/memory.max": "1000"}, 1000),
        ({"pod/app/memory.max": "nonsense"}, 0),
    ],
)
def test_the_least_limit_of_the_control_groups_counts(tmp_path: Path, files: dict[str, str], limit: int) -> None:
    (tmp_path / "self").write_text("0::/pod/app\n")
    (tmp_path / "root/pod/app").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "root" / name).write_text(text + "\n")
    assert cgroup_memory_bytes(tmp_path / "self", tmp_path / "root") == limit


def test_the_default_is_a_quarter_of_the_memory_and_not_more_than_some_gigabytes() -> None:
    assert 0 < default_budget_bytes() <= 4 * 1024**3
    assert default_budget_bytes() in (available_memory_bytes() // 4, 4 * 1024**3)
    assert [parse_limit(text) for text in ("0", "500M")] == [0, 500_000_000]
