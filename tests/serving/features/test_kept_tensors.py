"""Tensors within a number of bytes: which go, and that all that they take is counted."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.features.kept_tensors import ENTRY_BYTES, KeptTensors

SIZE = ENTRY_BYTES + 100


def array(size: int = 100) -> np.ndarray:
    return np.zeros(size, np.uint8)


def key(number: int) -> bytes:
    return number.to_bytes(64, "big")


def test_what_was_asked_for_again_outlives_what_was_not() -> None:
    kept = KeptTensors(5 * SIZE)
    kept.put(key(0), array(), frozenset("s"))
    kept.used([key(0)])
    for number in range(1, 100):
        kept.put(key(number), array(), frozenset("s"))
    assert kept.get(key(0)) is not None
    assert [number for number in range(1, 100) if kept.get(key(number)) is not None] == [96, 97, 98, 99]
    assert kept.evictions == 95


def test_what_was_asked_for_again_long_ago_goes_in_the_end() -> None:
    kept = KeptTensors(5 * SIZE)
    for number in range(20):
        kept.put(key(number), array(), frozenset("s"))
        kept.used([key(number)])
    assert [number for number in range(20) if kept.get(key(number)) is not None] == [15, 16, 17, 18, 19]


def test_what_is_larger_than_all_drives_nothing_out() -> None:
    kept = KeptTensors(2 * SIZE)
    kept.put(key(0), array(), frozenset("s"))
    assert not kept.put(key(1), array(10_000), frozenset("s"))
    assert kept.get(key(0)) is not None


action = st.tuples(st.sampled_from(["put", "use", "drop"]), st.integers(0, 9), st.integers(0, 3000))


@settings(max_examples=100)
@given(st.lists(action, max_size=60))
def test_its_bytes_are_those_of_what_is_there_and_never_more_than_allowed(actions: list[tuple[str, int, int]]) -> None:
    kept = KeptTensors(8000)
    model: dict[int, tuple[int, frozenset[str]]] = {}
    for what, number, size in actions:
        if what == "put":
            segments = frozenset({"trunk", f"s{number % 3}"})
            if kept.put(key(number), array(size), segments):
                model[number] = size, segments
        elif what == "use":
            kept.used([key(number)])
        else:
            kept.drop([f"s{number % 3}"])
            assert all(
                f"s{number % 3}" not in segments for other, (_, segments) in model.items() if kept.get(key(other)) is not None
            )
        there = {number: size for number, (size, _) in model.items() if kept.get(key(number)) is not None}
        model = {number: model[number] for number in there}
        assert kept.bytes == sum(ENTRY_BYTES + size for size in there.values()) <= 8000
        assert len(kept) == len(there)
    kept.clear()
    assert (len(kept), kept.bytes, kept._keys, kept._lasting_bytes) == (0, 0, {}, 0)


def test_what_is_counted_beside_the_values_is_no_less_than_what_it_takes() -> None:
    count, segments = 2000, frozenset({"trunk", "stage-2", "stage-3"})
    kept = KeptTensors(1 << 30)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            kept.put(key(number), np.zeros(256, np.uint8), segments)
            kept.used([key(number)])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert count * 256 < taken <= kept.bytes
