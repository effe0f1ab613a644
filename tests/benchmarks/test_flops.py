from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.flops.count import Counted, save
from exporter.graph.chain import Block, Tap

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
    assert (saved.parameters, saved.separate_parameters) == (5 + 2 + 3 * (3 + 1), 3 * 11)
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


def test_parts_of_a_module_and_what_has_no_name_are_put_together() -> None:
    names = [("normalise", "stem"), (), ("block.0",), ("block.0",), ("block.1", "block.2"), ("block.1",), ("head",)]
    fine = counted(1, 2, 3, 4, 5, 6, 7)
    blocks = tuple(
        replace(block, modules=modules, outputs=(replace(TAP, shape=(block.index + 1,)),))
        for block, modules in zip(fine.blocks, names, strict=True)
    )
    fine = replace(fine, blocks=blocks)
    whole = fine.whole
    assert fine.places == ("stem", "block 1", "block.0", "block.0 (2)", "block.1", "block.1 (2)", "head")
    assert whole.places == ("stem", "block.0", "block.1", "head")
    assert [block.macs for block in whole.blocks] == [1 + 2, 3 + 4, 5 + 6, 7]
    assert whole.activation_bytes == (300, 700, 1100, 700)
    assert [block.end.shape for block in whole.blocks] == [(2,), (4,), (6,), (7,)]  # of the last part
    assert (whole.macs, whole.torch_macs) == (fine.macs, fine.torch_macs)
    assert whole.whole == whole


def test_weights_of_a_task_that_tunes_a_whole_block_are_those_of_all_its_parts() -> None:
    names = [("stem",), ("block.0",), ("block.0",), ("head",)]
    fine = counted(5, 1, 2, 1)
    fine = replace(fine, blocks=tuple(replace(b, modules=m) for b, m in zip(fine.blocks, names, strict=True)))
    assert save(fine.whole, fork=1, tasks=3).block_bytes == 10 * (5 + 3 * (1 + 2 + 1))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=2, max_size=8), st.integers(1, 32))
def test_putting_together_changes_no_sum_and_a_fork_between_blocks_saves_the_same(names: list[str], tasks: int) -> None:
    fine = counted(*range(1, len(names) + 1))
    fine = replace(fine, blocks=tuple(replace(b, modules=(n,) if n else ()) for b, n in zip(fine.blocks, names, strict=True)))
    whole = fine.whole
    assert whole.macs == fine.macs
    assert len({*whole.places}) == len(whole.places)
    starts = [block.index for block in whole.blocks]  # of their first parts
    for place, start in list(enumerate(starts))[1:]:
        assert save(whole, place, tasks).speedup == save(fine, start, tasks).speedup
