"""Who may wait: properties of the shares of the queue, in rows and turns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.scheduling.admission import Admission, QueuePlace, counted_rows
from serving.errors import QueueFull

LIMITS = st.integers(1, 1024)
# What each turn does: the model, the rows that it asks for, and how many of its oldest requests begin before.
TURNS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3000), st.integers(0, 2)), max_size=120)


class Queue:
    """An admission, and the places of each model, oldest first."""

    def __init__(self, limit: int) -> None:
        self.admission = Admission(limit)
        self.places: dict[str, list[QueuePlace]] = {}

    def begin(self, model: str, requests: int) -> None:
        places = self.places.get(model, [])
        for place in places[:requests]:
            place.let_go()
        del places[:requests]

    def ask(self, model: str, rows: int) -> bool:
        try:
            self.places.setdefault(model, []).append(self.admission.enter(model, rows))
        except QueueFull:
            return False
        return True

    def rows(self, model: str) -> int:
        return self.admission.rows().get(model, 0)

    @property
    def total(self) -> int:
        return sum(self.admission.rows().values())


@settings(max_examples=200, deadline=None)
@given(LIMITS, TURNS)
def test_no_more_wait_than_the_limit_who_has_nothing_waiting_begins_while_a_row_is_free_and_nothing_stays(
    limit: int, turns: Sequence[tuple[str, int, int]]
) -> None:
    queue = Queue(limit)
    for model, rows, begin in turns:
        queue.begin(model, begin)
        own, total = queue.rows(model), queue.total
        assert queue.ask(model, rows) == bool(counted_rows(rows, own, total - own, limit))
        assert own or (queue.rows(model) > 0) == (total < limit)
        assert total <= queue.total <= limit
    for model, places in queue.places.items():
        queue.begin(model, len(places))
    assert queue.admission.rows() == {}


@settings(max_examples=200, deadline=None)
@given(st.integers(16, 1024), TURNS, st.data())
def test_whatever_one_model_asks_a_row_of_another_is_refused_only_beyond_its_share(
    limit: int, turns: Sequence[tuple[str, int, int]], data: st.DataObject
) -> None:
    """All of the flood is one model's, whatever its letters say; the other's share beside it is 3/16 of the queue."""
    queue = Queue(limit)
    for _, rows, begin in turns:
        queue.begin("flood", begin)
        queue.ask("flood", rows)
        queue.begin("quiet", data.draw(st.integers(0, 1)))
        own = queue.rows("quiet")
        assert queue.ask("quiet", 1) or own >= 3 * limit // 16 - 1


def test_one_alone_fills_three_quarters_and_several_end_at_equal_shares() -> None:
    queue = Queue(1024)
    while queue.ask("a", 1):
        pass
    assert queue.rows("a") == 768
    for _ in range(2000):  # a request of one of them begins, whoever's turn it is, and all of them ask for more
        queue.begin(max("abcd", key=queue.rows), 1)
        for model in "abcd":
            while queue.ask(model, 1):
                pass
    assert [queue.rows(model) for model in "abcd"] == [pytest.approx(1024 * 3 / 13, abs=3)] * 4
    assert 1024 - queue.total >= 1024 // 13


@pytest.mark.parametrize("models", [300, 1000])
def test_hundreds_that_ask_at_once_all_begin_and_what_they_ask_then_leaves_room_for_a_new_one(models: int) -> None:
    queue = Queue(1024)
    assert all(queue.ask(f"m{number}", 1) for number in range(models))
    for rows in (5, 1, 1, 1, 1):
        for number in range(models):
            queue.ask(f"m{number}", rows)
    assert queue.ask("new", 5000)
