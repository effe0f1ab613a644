"""SharedBuffers of shared memory: who has one, when it may be written again, and what is left of those who were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.triton.shared_buffers import PREFIX, SharedBuffer, SharedBuffers, is_abandoned, remove_abandoned, space

SHARED = Path("/dev/shm")
KB = 1 << 10
MADE = (
    f"from serving.engines.triton.shared_buffers import SharedBuffer as B; b = B({256 * KB}); print(b.name, flush=True); input()"
)


def files() -> set[str]:
    return {file.name for file in SHARED.glob(f"{PREFIX}{os.getpid()}-*")}


def test_arrays_are_where_it_says_whatever_their_kind_and_order() -> None:
    arrays = {
        "odd": np.arange(7, dtype=np.uint8),
        "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "every other": np.arange(10, dtype=np.int64)[::2],
        "big-endian": np.arange(5, dtype=">i4"),
        "flags": np.array([[True], [False]]),
        "half": np.arange(3, dtype=np.float16),
        "none": np.empty((0, 3), np.float32),
    }
    buffer = SharedBuffer(256 * KB)
    places = buffer.write(arrays)
    memory = (SHARED / buffer.key.lstrip("/")).read_bytes()
    for name, array in arrays.items():
        place = places[name]
        little = array.dtype.newbyteorder("<")
        found = np.frombuffer(memory[place.offset : place.offset + place.byte_size], little).reshape(array.shape)
        np.testing.assert_array_equal(found, array)
        assert place.region == buffer.name
        assert place.offset % 64 == 0
        assert place.offset + place.byte_size <= space(arrays.values())
    buffer.close()
    assert buffer.name not in files()


def test_what_does_not_fit_into_memory_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(OSError, match=r"No space left|Cannot allocate|File too large"):
        SharedBuffer(1 << 50)
    assert files() == set()


ACTIONS = st.lists(st.tuples(st.sampled_from(["take", "put", "retire", "forget"]), st.integers(0, 2000 * KB)), max_size=40)


@pytest.mark.slow
@settings(max_examples=50)
@given(ACTIONS)
def test_a_slab_has_one_user_at_a_time_and_none_once_it_is_retired(actions: list[tuple[str, int]]) -> None:
    most = 3000 * KB
    buffers, used, retired = SharedBuffers(most), [], set()
    for action, number in actions:
        if action == "take":
            buffer = buffers.take(number)
            if buffer is None:
                assert buffers.wanted >= number
                buffers.make_room(buffers.wanted)
                if buffers.has_room(buffers.wanted):
                    buffers.put(SharedBuffer(buffers.wanted))
                buffers.wanted = 0
            else:
                assert buffer.byte_size >= number
                assert buffer not in used
                assert buffer.name not in retired
                used.append(buffer)
        elif action == "forget" and buffers.retired:
            buffers.forget(buffers.retired[number % len(buffers.retired)])
        elif action in ("put", "retire") and used:
            buffer = used.pop(number % len(used))
            (buffers.put if action == "put" else buffers.retire)(buffer)
        retired |= {buffer.name for buffer in buffers.retired}
        assert sum(buffer.byte_size for buffer in buffers.known) <= most
        assert files() == {buffer.name for buffer in buffers.known}
        assert not {buffer.name for buffer in used} & retired
    for buffer in buffers.known:
        buffer.close()


def test_small_slabs_give_way_to_a_larger_one_but_only_as_many_as_it_takes() -> None:
    buffers = SharedBuffers(1024 * KB)
    for _ in range(4):
        assert buffers.has_room(256 * KB)
        buffers.put(SharedBuffer(256 * KB))
    used = buffers.take(1)
    assert not buffers.has_room(256 * KB)
    buffers.make_room(512 * KB)
    assert len(buffers.retired) == 2
    buffers.make_room(1024 * KB)
    assert len(buffers.retired) == 2  # the one in use is in the way, so that the others may as well stay
    assert used not in buffers.retired
    for buffer in buffers.known:
        buffer.close()


@pytest.mark.slow
def test_slabs_of_the_killed_are_removed_and_those_of_the_living_are_not() -> None:
    mine = SharedBuffer(256 * KB)
    with subprocess.Popen([sys.executable, "-c", MADE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        remove_abandoned()
        assert [(SHARED / one).exists() for one in (name, mine.name)] == [True, True]
        other.send_signal(signal.SIGKILL)
        other.wait(20)
        assert [is_abandoned(one) for one in (name, mine.name)] == [True, False]
        remove_abandoned()
        assert [(SHARED / one).exists() for one in (name, mine.name)] == [False, True]
    being_made = SHARED / f"{PREFIX}{os.getpid()}-being-made"
    being_made.touch()
    assert not is_abandoned(being_made.name)
    being_made.unlink()
    mine.close()
    assert is_abandoned(mine.name)
