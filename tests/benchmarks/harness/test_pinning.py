"""Who gets which cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.pinning import find_cores, on_cores, split_cores


@given(st.integers(1, 128))
def test_clients_get_cores_of_their_own_where_there_are_enough(count: int) -> None:
    found = split_cores(range(count))
    assert found.shared == (count < 4)
    assert found.clients
    assert sorted({*found.server, *found.clients}) == list(range(count))
    assert found.shared or not set(found.server) & set(found.clients)
    assert found.shared or len(found.server) >= 3 * len(found.clients)


def test_it_is_said_who_has_how_many() -> None:
    assert split_cores([0, 1]).words == "Server and clients share 2 cores, which costs the server throughput."
    assert split_cores(range(4)).words == "The server has 3 cores of its own, and the clients have 1 core of theirs."


def test_under_a_quota_cores_are_shared_and_no_more_are_used_than_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("needs two cores")
    assert find_cores().usable == len(find_cores().server)
    monkeypatch.setattr("benchmarks.harness.pinning.available_cores", lambda: 1)
    found = find_cores()
    assert found.shared
    assert found.usable == 1
    assert found.words == "Server and clients share the time of 1 core, a quota, which costs the server throughput."


def test_a_process_started_on_cores_stays_there_when_its_parent_goes_on() -> None:
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("needs two cores")
    with on_cores([min(mine)]):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            with on_cores([max(mine)]):
                assert os.sched_getaffinity(child.pid) == {min(mine)}
                assert os.sched_getaffinity(0) == {max(mine)}
        finally:
            child.communicate(b"\n")
    assert os.sched_getaffinity(0) == mine


def test_what_is_found_is_of_this_process() -> None:
    found = find_cores()
    assert {*found.server, *found.clients} <= os.sched_getaffinity(0)
