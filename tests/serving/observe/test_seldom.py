from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.observe.logs import Seldom


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=30))
def test_each_kind_once_in_a_while_and_the_first_always(things: list[tuple[str, int]]) -> None:
    now = [0]
    seldom, said = Seldom(10, lambda: now[0]), dict[str, int]()
    for kind, pause in things:
        now[0] += pause
        assert seldom.may(kind) == (kind not in said or now[0] - said[kind] >= 10)
        if kind not in said or now[0] - said[kind] >= 10:
            said[kind] = now[0]


def test_many_kinds_are_forgotten() -> None:
    now = [0]
    seldom = Seldom(10, lambda: now[0])
    for number in range(5000):
        now[0] += 1
        assert seldom.may(str(number))
    assert len(seldom._next) <= 1001
