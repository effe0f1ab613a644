"""Names of sizes: they fit, they can be computed with, and different sizes have different names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.free.expressions import describe, evaluate, invert, names_in

POINTS = ((224, 224), (448, 224), (223, 224), (224, 448), (224, 223))
BASES = {"height": tuple(height for height, _ in POINTS), "width": tuple(width for _, width in POINTS)}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("height", lambda h, w: h),
        ("12*width", lambda h, w: 12 * w),
        ("width+2", lambda h, w: w + 2),
        ("height/8", lambda h, w: h // 8),
        ("(height+7)/8", lambda h, w: -(-h // 8)),
        ("height*width", lambda h, w: h * w),
        ("(height/8)*(width/8)", lambda h, w: (h // 8) * (w // 8)),
    ],
)
def test_a_size_has_a_name_that_says_how_it_follows(name: str, size) -> None:
    vector = tuple(size(*point) for point in POINTS)
    others = [*BASES.values(), *(tuple(entry // 8 for entry in base) for base in BASES.values())]
    assert describe(vector, BASES, others) == name
    assert [evaluate(name, {"height": h, "width": w}) for h, w in POINTS] == list(vector)
    assert names_in(name) <= {"height", "width"}


def test_a_size_that_follows_from_nothing_known_has_a_name_of_its_own() -> None:
    names = {describe(vector, BASES) for vector in [(1, 2, 3, 5, 9), (1, 2, 3, 5, 8)]}
    assert len(names) == 2
    assert all(names_in(name) == {name} for name in names)


@given(st.lists(st.integers(1, 99), min_size=5, max_size=5), st.lists(st.integers(1, 99), min_size=5, max_size=5))
def test_different_sizes_have_different_names(first: list[int], second: list[int]) -> None:
    one, other = (describe(tuple(sizes), BASES) for sizes in (first, second))
    assert (one == other) == (first == second)


def test_a_base_is_found_from_what_is_computed_from_it() -> None:
    assert invert({"height/8": 28, "height/4": 56, "height+2": 226}, "height") == 224
    assert invert({"height/8": 28, "height/4": 10}, "height") is None


@pytest.mark.parametrize("text", ["height/0", "height**2", "f(height)", "height//", "1.5", "(" * 999])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        evaluate(text, {"height": 3})
