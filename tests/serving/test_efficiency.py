from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.efficiency import RowLimits, efficient_rows, measure
from tests.serving.nets import LAYERS

TRUNK, MID, TUNED = (LAYERS[name].segment() for name in ("trunk", "mid", "tuned-a"))


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing is won by waiting for more
        ({1: 1.0, 2: 1.2, 4: 2.0, 8: 4.0}, 4),
        ({1: 1.0, 2: 1.8, 4: 3.59}, 2),
        ({1: 1.0, 2: 1.5, 4: 4.4}, 2),  # caches
        ({1: 1.0, 2: 1.98, 4: 3.96, 8: 7.9}, 1),
    ],
)
def test_the_smallest_number_of_rows_that_is_as_good_as_the_best(seconds: Mapping[int, float], rows: int) -> None:
    assert efficient_rows(seconds) == rows


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8, 16]), st.floats(1e-6, 10), min_size=1))
def test_it_is_one_that_was_measured_and_within_three_percent(seconds: dict[int, float]) -> None:
    rows = efficient_rows(seconds)
    assert seconds[rows] / rows <= 1.03 * min(value / size for size, value in seconds.items())


class Machine:
    """Runs that take a known time, on a clock of their own."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.asked: list[int] = []
        self.now = 0.0
        self._seconds = seconds

    def __call__(self, rows: int) -> None:
        self.asked.append(rows)
        self.now += self._seconds(rows)

    def clock(self) -> float:
        return self.now


def test_sizes_double_up_to_the_most_and_end_when_they_get_worse() -> None:
    machine = Machine(lambda rows: 0.001)
    assert list(measure(machine, 6, 10, machine.clock)) == [1, 2, 4]
    machine = Machine(lambda rows: 0.002 * rows if rows <= 2 else 0.01 * rows)
    assert list(measure(machine, 64, 10, machine.clock)) == [1, 2, 4]


@given(st.floats(0, 2), st.floats(0.001, 1))
def test_the_budget_ends_it_and_one_row_is_always_measured(budget: float, seconds: float) -> None:
    machine = Machine(lambda rows: seconds * rows)
    assert 1 in measure(machine, 64, budget, machine.clock)
    assert machine.now <= max(4 * seconds, budget * (1 + 1e-9))


def test_what_was_learnt_holds_for_segments_of_the_same_shape_and_is_kept(tmp_path: Path) -> None:
    constant, linear = Machine(lambda rows: 0.001), Machine(lambda rows: 0.001 * rows)
    file = tmp_path / "cache" / "rows.json"
    limits = RowLimits(file, threads=1, clock=lambda: constant.now + linear.now)
    assert limits.limit(TRUNK) == TRUNK.max_batch_rows
    limits.learn(TRUNK, constant)
    limits.learn(MID, linear)
    assert (limits.limit(TRUNK), limits.limit(MID)) == (4, 1)
    constant.asked.clear()
    limits.learn(TUNED, constant)  # of MID's shape
    assert limits.limit(TUNED) == 1
    limits.save()
    again = RowLimits(file, threads=1)
    again.learn(TRUNK, constant)
    assert constant.asked == []
    assert again.limit(TRUNK) == 4
    assert RowLimits(file, threads=2).limit(TRUNK) == TRUNK.max_batch_rows  # another machine, so to say
    RowLimits(file, threads=2).save()
    assert RowLimits(file, threads=1).limit(TRUNK) == 4


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 3}', '{"x": {"y": "z"}}', '{"x": {"y": 0}}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    limits = RowLimits(tmp_path / "rows.json", threads=1)
    assert limits.limit(TRUNK) == TRUNK.max_batch_rows
    limits.save()


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    RowLimits(tmp_path / "taken" / "rows.json", threads=1).save()
