"""How a closed loop's answers are counted, on made-up servers, and that the loop does what the count needs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.closed_loop import Ask, Span, closed_loop, rate

some_clients, moments = st.integers(1, 32), st.floats(0, 50)
spans = st.lists(st.builds(lambda sent, took: Span(sent, sent + took), moments, st.floats(0.001, 20)), max_size=50)


def _one_lane(clients: int, service_s: float, count: int) -> Iterator[Span]:
    """A server that takes one request after the other: each waits for those of all other clients."""
    for number in range(1, count + 1):
        yield Span(max(0, number - clients) * service_s, number * service_s)


def _in_bursts(clients: int, service_s: float, rounds: int) -> Iterator[Span]:
    """A server that answers all clients at once."""
    for number, _ in itertools.product(range(rounds), range(clients)):
        yield Span(number * service_s, (number + 1) * service_s)


@given(some_clients, st.floats(0.01, 1), st.floats(0.1, 30))
def test_a_constant_rate_is_found_whatever_the_number_of_clients_and_the_length_of_the_window(
    clients: int, service_s: float, seconds: float
) -> None:
    begin = clients * service_s  # the last of the first answers
    count = 2 * clients + int(seconds / service_s) + 1
    assert rate(_one_lane(clients, service_s, count), begin, begin + seconds) == pytest.approx(1 / service_s)


@given(some_clients, st.floats(0.1, 2), moments, st.floats(0.1, 30))
def test_answers_that_come_many_at_once_count_evenly(clients: int, service_s: float, begin: float, seconds: float) -> None:
    rounds = int((begin + seconds) / service_s) + 2
    assert rate(_in_bursts(clients, service_s, rounds), begin, begin + seconds) == pytest.approx(clients / service_s)


@given(spans, st.lists(moments, min_size=3, max_size=3, unique=True))
def test_every_request_counts_once_however_the_time_is_divided(found: list[Span], times: list[float]) -> None:
    begin, middle, end = sorted(times)
    parts = rate(found, begin, middle) * (middle - begin) + rate(found, middle, end) * (end - middle)
    assert rate(found, begin, end) * (end - begin) == pytest.approx(parts, abs=1e-9)
    assert rate(found, 0, 100) * 100 == pytest.approx(len(found))


@given(st.lists(st.lists(st.floats(0.01, 5), min_size=1, max_size=20), min_size=1, max_size=8), moments, st.floats(0.1, 20))
def test_the_count_is_off_by_less_than_a_request_of_each_client(took: list[list[float]], begin: float, seconds: float) -> None:
    found = [
        Span(answered - last, answered)
        for times in took
        for last, answered in zip(times, itertools.accumulate(times), strict=True)
    ]
    answered = sum(begin <= span.answered_s < begin + seconds for span in found)
    assert abs(rate(found, begin, begin + seconds) * seconds - answered) < len(took) + 1e-9


def test_a_request_that_took_no_time_counts_where_it_was() -> None:
    assert [Span(1.0, 1.0).share_within(*window) for window in ((0, 1), (1, 2), (2, 3))] == [0, 1, 0]


# ---- the loop


def _lane(log: list[int], service_s: float) -> Callable[[int], Ask]:
    """A server with one lane. log: who was answered, in order."""
    lock = asyncio.Lock()

    def client(number: int) -> Ask:
        async def ask() -> None:
            async with lock:
                await asyncio.sleep(service_s)
                log.append(number)

        return ask

    return client


def test_the_time_begins_when_every_client_has_an_answer_and_slow_ones_are_waited_for() -> None:
    log: list[int] = []
    lane = _lane(log, 0.002)
    found = asyncio.run(closed_loop([lane(number) for number in range(8)], 0.05))
    spans = sorted(found.spans, key=lambda span: span.answered_s)
    firsts = max(log.index(number) for number in range(8))
    assert len(spans) == len(log)
    assert spans[firsts].answered_s <= found.begin_s < spans[firsts + 1].answered_s
    assert found.end_s - found.begin_s == pytest.approx(0.05)
    assert max(span.sent_s for span in spans) < found.end_s < spans[-1].answered_s
    assert len(found.latencies_s) == sum(span.sent_s >= found.begin_s for span in spans)
    assert found.per_s == rate(found.spans, found.begin_s, found.end_s) > 0


def test_a_request_longer_than_the_measured_time_is_still_measured() -> None:
    found = asyncio.run(closed_loop([lambda: asyncio.sleep(0.12)], 0.1))
    assert len(found.spans) == 2
    assert found.latencies_s == (found.spans[1].seconds,)
    assert 0 < found.per_s <= 1 / found.spans[1].seconds + 1e-9


def test_failures_are_no_answers_and_other_exceptions_end_the_loop() -> None:
    asked = answered = 0

    async def refused() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.001)
        raise ConnectionError("refused")

    async def fine() -> None:
        nonlocal answered
        await asyncio.sleep(0.001)
        answered += 1

    async def both() -> int:
        found = await closed_loop([refused, fine], 0.01, (OSError,))
        assert {str(failure) for failure in found.failures} == {"refused"}
        assert (len(found.spans), len(found.failures)) == (answered, asked)
        assert len(found.latencies_s) < len(found.spans)  # the first answer comes before the measured time
        with pytest.raises(ConnectionError, match="refused"):
            await asyncio.wait_for(closed_loop([refused, fine], 10.0), 10.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}  # nobody goes on asking
        return asked

    assert asyncio.run(both()) == asked
