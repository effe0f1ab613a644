from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.suite.flops import Counted, save
from exporter.chain import Block, Tap

TAP = Tap("tap", "0", "FLOAT", (4,))


def counted(*counts: int) -> Counted:
    """Blocks whose MACs, weight bytes and activation bytes are these numbers times 1, 10 and 100."""
    blocks = tuple(
        Block(i, str(i), str(i), (TAP,), (TAP,), macs=n, parameters=n, weight_bytes=10 * n) for i, n in enumerate(counts)
    )
    return Counted("net", blocks, tuple(100 * count for count in counts), sum(counts))


def test_a_fork_counted_by_hand() -> None:
    """A stem (5), a block to tune (3), a frozen suffix (2), a head (1), three tasks."""
    saved = save(counted(5, 3, 2, 1), fork=1, tasks=3)
    assert (saved.macs, saved.separate_macs) == (5 + 3 * (3 + 2 + 1), 3 * 11)
    assert (saved.activation_bytes, saved.separate_activation_bytes) == (100 * saved.macs, 100 * saved.separate_macs)
    assert saved.block_bytes == 10 * (5 + 2 + 3 * (3 + 1))  # the suffix is stored once
    assert saved.all_bytes == 10 * (5 + 3 * (3 + 2 + 1))
    assert saved.separate_bytes == 10 * 33


def test_a_linear_probe_has_its_head_alone() -> None:
    saved = save(counted(5, 3, 2, 1), fork=3, tasks=3)
    assert saved.macs == 10 + 3 * 1
    assert saved.block_bytes == saved.all_bytes == 10 * (10 + 3 * 1)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=5), st.integers(1, 32), st.data())
def test_sharing_never_costs_and_never_gains_more_than_the_number_of_tasks(
    macs: list[int], tasks: int, data: st.DataObject
) -> None:
    fork = data.draw(st.integers(1, len(macs) - 1))
    saved = save(counted(*macs), fork, tasks)
    assert 1 <= saved.speedup <= tasks
    assert saved.block_bytes <= saved.all_bytes <= saved.separate_bytes
    assert (saved.speedup == 1) == (tasks == 1)


def test_counts_agree_to_one_per_cent() -> None:
    exact = counted(60, 40)
    assert exact.counts_agree
    assert Counted("net", exact.blocks, exact.activation_bytes, 101).counts_agree
    assert not Counted("net", exact.blocks, exact.activation_bytes, 103).counts_agree
