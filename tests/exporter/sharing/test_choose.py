"""Which cuts are made: by what they save and cost, by rule, and by number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import TooFewSegments
from exporter.graph.chain import Block, Chain, Tap
from exporter.graph.digests import combined_digest
from exporter.sharing.choose import CutOptions
from exporter.sharing.costs import CutCosts
from exporter.sharing.plan import SharingPlan, make_sharing_plan
from tests.exporter.sharing.test_plan import families, words

MEGA = 1_000_000
# One run costs as much as 4 MMACs; bytes are nearly free.
COSTS = CutCosts(seconds_per_run=1e-4, bytes_per_second=1e12, macs_per_second=4e10)


def chain(
    name: str, blocks: Sequence[tuple[str, int]], shapes: Sequence[tuple[int, ...]] | None = None, weight: int = 4
) -> Chain:
    """Blocks as (word, MACs); shapes: of the taps after each."""
    tap = Tap("image", hashlib.sha256(b"image").hexdigest(), "UINT8", (2, 2, 3))
    made = []
    for index, (word, macs) in enumerate(blocks):
        digest = hashlib.sha256(word.encode()).hexdigest()
        end = Tap(f"{name}.{index}", combined_digest([tap.address, digest]), "FLOAT", shapes[index] if shapes else (4,))
        made.append(Block(index, digest, digest, (tap,), (end,), macs, parameters=1, weight_bytes=weight, modules=(word,)))
        tap = end
    return Chain(name, tuple(made), made[0].inputs, made[-1].outputs)


def plan(tasks: Sequence[Chain], **options: object) -> SharingPlan:
    return make_sharing_plan(tasks, None, CutOptions(costs=COSTS, **options))  # type: ignore[arg-type]


def test_a_cut_that_costs_more_than_it_saves_is_left_out_and_said_so() -> None:
    # p and q part after "tiny", r before it.
    tasks = [
        chain("p", [("a", 500 * MEGA), ("tiny", MEGA), ("P", 9 * MEGA)]),
        chain("q", [("a", 500 * MEGA), ("tiny", MEGA), ("Q", 9 * MEGA)]),
        chain("r", [("a", 500 * MEGA), ("R", 9 * MEGA)]),
    ]
    cheap = plan(tasks)
    assert words(cheap, "p") == [["a"], ["tiny", "P"]]
    assert words(cheap, "q") == [["a"], ["tiny", "Q"]]
    assert sorted(segment.role for segment in cheap.segments.values()) == ["p", "q", "r", "trunk"]
    (sentence,) = cheap.cuts_left_out
    assert sentence.startswith(
        "2 ways part after tiny without a cut: each computes 1.0 MMACs before it, which is cheaper by 0.08 ms"
    )
    assert words(plan(tasks, rule="exact"), "p") == [["a"], ["tiny"], ["P"]]
    reasons = {segment.blocks[0].modules[0]: segment.reason for segment in cheap.segments.values()}
    assert reasons["a"] == ""
    assert reasons["R"].startswith(
        "3 ways part here: what is before runs once, which saves 1.00 GMACs a request; it costs 0.10 ms"
    )


def test_a_large_shared_part_is_worth_its_cut() -> None:
    tasks = [chain("p", [("a", 500 * MEGA), ("P", 1)]), chain("q", [("a", 500 * MEGA), ("Q", 1)])]
    assert plan(tasks).segments == plan(tasks, rule="exact").segments
    assert plan(tasks).cuts_left_out == ()


def test_a_small_merge_is_left_out_and_a_heavy_one_is_not() -> None:
    def tasks(weight: int) -> list[Chain]:
        ends = (("s", MEGA), ("h", MEGA))
        return [chain(name, [("a", 500 * MEGA), (name, 50 * MEGA), *ends], weight=weight) for name in ("p", "q")]

    assert len(plan(tasks(4)).segments) == 3  # the trunk, and two ways to their ends
    assert plan(tasks(4)).cuts_left_out[0].startswith("2 ways meet before s without a cut: each holds 8 B of weights")
    heavy = plan(tasks(10**9))
    assert len(heavy.segments) == 4
    assert any(s.reason.startswith("2 ways meet here: 2000.0 MB of weights are stored once") for s in heavy.segments.values())


def test_stages_are_cut_where_the_shape_changes_and_nowhere_else() -> None:
    shapes = [(8, 8), (8, 8), (16, 4), (16, 4), (3,)]
    blocks = [(word, 100 * MEGA) for word in "abcd"]
    tasks = [
        chain("p", [*blocks[:3], ("X", 100 * MEGA), ("hp", 1)], shapes),
        chain("q", [*blocks, ("hq", 1)], shapes),
        chain("r", [*blocks[:2], ("Y", 100 * MEGA), blocks[3], ("hr", 1)], shapes),
    ]
    stages = plan(tasks, rule="stages")
    assert words(stages, "p") == [["a", "b"], ["c", "X"], ["hp"]]
    assert words(stages, "q") == [["a", "b"], ["c", "d"], ["hq"]]
    assert words(stages, "r") == [["a", "b"], ["Y", "d"], ["hr"]]
    assert len(stages.cuts_left_out) == 2
    assert all(" without a cut: " in sentence for sentence in stages.cuts_left_out)
    assert [segment.reason.partition(";")[0] for segment in stages.segments.values() if segment.blocks[0].modules == ("hp",)] == [
        "a stage ends here: tasks added later find their fork"
    ]


def test_the_number_of_segments_can_be_limited() -> None:
    tasks = [
        chain("p", [("a", 500 * MEGA), ("b", 90 * MEGA), ("P", MEGA)]),
        chain("q", [("a", 500 * MEGA), ("b", 90 * MEGA), ("Q", MEGA)]),
        chain("r", [("a", 500 * MEGA), ("R", MEGA)]),
    ]
    assert len(plan(tasks).segments) == 5
    four = plan(tasks, max_segments=4)
    assert words(four, "p") == [["a"], ["b", "P"]]
    assert "because of --max-segments 4; it costs 2.15 ms" in four.cuts_left_out[0]
    assert len(plan(tasks, max_segments=3).segments) == 3
    with pytest.raises(TooFewSegments, match="cannot be exported as 2 segments; 3 is the fewest"):
        plan(tasks, max_segments=2)


@pytest.mark.slow
@given(families(), st.sampled_from(["exact", "cheap", "stages"]), st.sampled_from([None, 8]))
def test_whatever_is_cut_the_segments_compose_to_every_task(
    family: tuple[list[Chain], Chain | None], rule: str, limit: int | None
) -> None:
    tasks, backbone = family
    try:
        made = make_sharing_plan(tasks, backbone, CutOptions(rule, limit, COSTS))  # type: ignore[arg-type]
    except TooFewSegments:
        assert limit is not None
        return
    for task in tasks:
        blocks = [block.digest for step in made.tasks[task.name] for block in made.segments[step.segment].blocks]
        assert blocks == [block.digest for block in task.blocks]
        known = {tap.address for tap in task.inputs}
        for step in made.tasks[task.name]:
            assert {tap.address for tap in step.inputs} <= known
            known |= {tap.address for tap in step.outputs}
    assert limit is None or len(made.segments) <= limit


@pytest.mark.slow
@given(families())
def test_cheap_is_never_dearer_than_exact(family: tuple[list[Chain], Chain | None]) -> None:
    tasks, _ = family

    def cost(rule: str) -> float:
        made = make_sharing_plan(tasks, None, CutOptions(rule, costs=COSTS))  # type: ignore[arg-type]
        runs = {(step.segment, step.inputs) for steps in made.tasks.values() for step in steps}
        macs = sum(block.macs for segment, _ in runs for block in made.segments[segment].blocks)
        return len({segment for segment, _ in runs}) * COSTS.seconds_per_run + macs / COSTS.macs_per_second

    assert cost("cheap") <= cost("exact") + 1e-9
