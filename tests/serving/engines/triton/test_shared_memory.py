"""Inputs in shared memory between the Triton engine and Tritons on this host; local_triton/test_triton.py has it on a real one."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.repository import Repository
from serving.engines.triton.addresses import Address
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.engines.triton.shared_buffers import PREFIX, SharedBuffer
from serving.engines.triton.shared_memory_channel import SharedMemoryChannels
from serving.errors import DeadlineExceeded, EngineDown
from serving.server import BackgroundServer
from tests.serving.engines.triton.engine_on_stand_in import ask, check, eventually, started
from tests.serving.engines.triton.sharing_stand_in import Sharing
from tests.serving.engines.triton.test_shared_buffers import files
from tests.serving.nets import CHAINS, TASK_NAMES
from tests.serving.stand_in import Refusal, StandIn

pytestmark = pytest.mark.slow

SHARED = TritonEngineOptions(wait_s=10, statistics_s=0.05, shared_from_bytes=1)
Work = Callable[[TritonEngine], Awaitable[None]]


@pytest.fixture(scope="module")
def shared(repository: Repository) -> Iterator[Sharing]:
    with Sharing(repository.path, "none") as triton:
        yield triton


@pytest.fixture
def triton(shared: Sharing) -> Iterator[Sharing]:
    yield shared
    assert shared.changed == []
    assert shared.regions == {}
    assert files() == set()
    shared.held.clear()
    shared.refusals.clear()
    for record in (shared.requests, shared.read):
        record.clear()
    shared.sent = 0


def use(repository: Repository, triton: StandIn, work: Work, options: TritonEngineOptions = SHARED) -> None:
    async def run() -> None:
        async with started(repository, triton.url, options) as engine:
            await work(engine)

    asyncio.run(run())


def test_inputs_are_in_memory_that_is_used_again_and_given_back_at_the_end(triton: Sharing, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        for rows in (1, 3, 2):
            check(await ask(engine, repository, "probe", "late", rows=rows), "probe", "late", rows=rows)
        assert triton.sent == 0
        assert len(triton.read) == 3
        assert {*triton.read} == {*triton.regions} == files()
        assert len(files()) == 1

    use(repository, triton, work)


def test_memory_that_triton_lets_go_of_a_little_after_its_answer_is_given_back_too(
    triton: Sharing, repository: Repository
) -> None:
    async def work(engine: TritonEngine) -> None:
        check(await ask(engine, repository, "probe"), "probe")
        triton.refuses_to_let_go = 3

    use(repository, triton, work)
    assert triton.refuses_to_let_go < 0


def test_small_inputs_go_with_the_message(triton: Sharing, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        check(await ask(engine, repository, "late", rows=2), "late", rows=2)
        assert (triton.sent, triton.read) == (1, [])
        check(await ask(engine, repository, "late", rows=3), "late", rows=3)
        assert (triton.sent, len(triton.read)) == (1, 1)

    use(repository, triton, work, replace(SHARED, shared_from_bytes=3 * 8 * 8 * 3))


def test_many_at_once_each_have_their_own_and_there_come_to_be_as_many_as_it_takes(
    triton: Sharing, repository: Repository
) -> None:
    async def work(engine: TritonEngine) -> None:
        async def one(rows: int) -> None:
            check(await ask(engine, repository, *TASK_NAMES, rows=rows), *TASK_NAMES, rows=rows)

        async with asyncio.timeout(20):
            while len(triton.regions) < 4:
                await asyncio.gather(*(one(1 + number % 6) for number in range(8)))

    use(repository, triton, work)


def test_the_steps_of_a_request_share_memory_too(triton: Sharing, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        triton.refusals["late"] = Refusal("INTERNAL", "out of sorts")
        async with asyncio.timeout(20):
            while len(triton.read) <= len([model for model, _, _ in triton.requests if model == "late"]):
                check(await ask(engine, repository, "late"), "late")
        assert {model for model, _, _ in triton.requests} == {"late", *CHAINS["late"]}

    use(repository, triton, work)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_memory_is_not_written_while_triton_may_read_it(triton: Sharing, repository: Repository, how: str) -> None:
    """Nobody waits any more for the request, but Triton is at it: it lets go when it is done, and then the memory is given up."""

    async def work(engine: TritonEngine) -> None:
        held = triton.held["late"] = threading.Event()
        deadline = {"deadline": asyncio.get_running_loop().time() + 0.3} if how == "late" else {}
        asked = asyncio.create_task(ask(engine, repository, "late", rows=4, **deadline))
        await eventually(lambda: bool(triton.read))
        (name,) = triton.read
        if how == "cancelled":
            asked.cancel()
        with pytest.raises((asyncio.CancelledError, DeadlineExceeded)):
            await asked
        async with asyncio.timeout(20):
            while len(triton.read) < 3:
                check(await ask(engine, repository, "probe", rows=3), "probe", rows=3)
        assert name not in triton.read[1:]
        assert name in triton.regions
        assert name in files()
        held.set()
        await eventually(lambda: name not in triton.regions and name not in files())
        assert len(files()) >= 1

    use(repository, triton, work)


def test_a_triton_that_has_forgotten_the_memory_is_asked_over_the_wire_and_told_of_new(
    triton: Sharing, repository: Repository
) -> None:
    async def work(engine: TritonEngine) -> None:
        check(await ask(engine, repository, "late"), "late")
        (old,) = triton.regions
        triton.regions.clear()
        triton.sent = 0
        check(await ask(engine, repository, "late"), "late")
        assert triton.sent == 1
        async with asyncio.timeout(20):
            while triton.sent:
                triton.sent = 0
                check(await ask(engine, repository, "late"), "late")
                await asyncio.sleep(0.002)
        assert old not in triton.regions
        assert old not in files()

    use(repository, triton, work)


def test_one_triton_reads_it_once(triton: Sharing, repository: Repository) -> None:
    """What gRPC tries again it tries over the wire: who has read the memory, and is done with it, is known."""

    async def work(engine: TritonEngine) -> None:
        triton.refusals["late"] = Refusal("UNAVAILABLE", "connection lost")
        with pytest.raises(EngineDown):
            await ask(engine, repository, "late")
        assert len(triton.read) == 1
        assert triton.sent == 4

    use(repository, triton, work)


def test_when_the_one_that_reads_is_lost_another_answers(repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        await eventually(lambda: len(engine._fleet.servers) == 2)  # type: ignore[union-attr]
        held = lost.held["late"] = threading.Event()
        asked = [asyncio.create_task(ask(engine, repository, "late")) for _ in range(2)]
        await eventually(lambda: bool(lost.read))
        await asyncio.to_thread(lost.stop)
        for one in asked:
            check(await one, "late")
        await eventually(lambda: files() == {*other.regions})
        held.set()
        lost.start()
        await eventually(lambda: len(engine._fleet.servers) == 2 and bool(lost.regions))  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while not lost.read:
                check(await ask(engine, repository, "late"), "late")

    with Sharing(repository.path, "none") as lost, Sharing(repository.path, "none") as other:

        async def run() -> None:
            async with started(repository, f"{lost.url},{other.url}", SHARED) as engine:
                await work(engine)

        asyncio.run(run())
        assert lost.changed == other.changed == []
        assert lost.regions == other.regions == {}
    assert files() == set()


def test_a_triton_elsewhere_is_used_over_the_wire_and_one_here_is_not(
    triton: Sharing, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(engine: TritonEngine) -> None:
        await eventually(lambda: len(engine._fleet.servers) == 2)  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while not (len(triton.read) > 3 and elsewhere.sent > 3):
                check(await ask(engine, repository, "late"), "late")
        assert elsewhere.read == []

    elsewhere = Sharing(repository.path, "none")
    elsewhere.can_open = False
    with elsewhere, caplog.at_level(logging.WARNING):

        async def run() -> None:
            async with started(repository, f"{triton.url},{elsewhere.url}", SHARED) as engine:
                await work(engine)

        asyncio.run(run())
    (said,) = [record.getMessage() for record in caplog.records if "memory in common" in record.getMessage()]
    assert said.startswith(f"Inputs go to the Triton at 127.0.0.1:{elsewhere.port} over the wire")
    assert "Unable to open shared memory region" in said


def test_it_is_said_once_that_a_triton_has_no_memory_in_common(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        lines = SharedMemoryChannels()
        for _ in range(2):
            await lines.join(Address("127.0.0.1", elsewhere.port))
            lines.leave(Address("127.0.0.1", elsewhere.port))
        await lines.aclose()

    elsewhere = Sharing(repository.path)
    elsewhere.can_open = False
    with elsewhere, caplog.at_level(logging.WARNING):
        asyncio.run(work())
    assert len([record for record in caplog.records if "memory in common" in record.getMessage()]) == 1
    assert files() == set()


def test_what_a_killed_process_has_left_is_taken_from_triton(triton: Sharing, repository: Repository) -> None:
    abandoned = f"{PREFIX}{os.getpid()}-abandoned"
    Path("/dev/shm", abandoned).write_bytes(b"what nobody has locked")
    living, not_ours = SharedBuffer(1), f"somebody-elses-{os.getpid()}"
    triton.regions.update(dict.fromkeys((abandoned, living.name, not_ours)))  # type: ignore[arg-type]

    async def work(engine: TritonEngine) -> None:
        check(await ask(engine, repository, "late"), "late")
        assert abandoned not in triton.regions
        assert {living.name, not_ours} < {*triton.regions}
        assert not Path("/dev/shm", abandoned).exists()

    use(repository, triton, work)
    assert {*triton.regions} == {living.name, not_ours}
    triton.regions.clear()
    living.close()


@pytest.mark.parametrize("offers", [True, False])
def test_with_another_espalier_in_tritons_place(
    repository: Repository, offers: bool, server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    def regions() -> int:
        return len([*Path("/dev/shm").glob(f"{PREFIX}{os.getpid()}-*")])

    async def work(url: str) -> None:
        async with started(repository, url, SHARED) as engine:
            check(await ask(engine, repository, *TASK_NAMES), *TASK_NAMES)
            assert regions() == offers

    if offers:
        with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, shared_memory=True) as behind:
            asyncio.run(work(f"grpc://{behind.grpc_address}"))
    else:
        asyncio.run(work(f"grpc://{server.grpc_address}"))
    assert regions() == 0
    assert ("memory in common" in caplog.text) is not offers
