from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.chain import Block, Chain, Tap
from exporter.graph.digests import combined_digest
from exporter.sharing.choose import CutOptions
from exporter.sharing.plan import SharingPlan, common_blocks, make_sharing_plan


def chain(name: str, blocks: Sequence[str]) -> Chain:
    """A chain whose blocks are told apart by a word each."""
    tap = Tap("image", hashlib.sha256(b"image").hexdigest(), "UINT8", (2, 2, 3))
    made = []
    for index, word in enumerate(blocks):
        digest = hashlib.sha256(word.encode()).hexdigest()
        end = Tap(f"{name}.{index}", combined_digest([tap.address, digest]), "FLOAT", (4,))
        made.append(Block(index, digest, digest, (tap,), (end,), macs=10, parameters=1, weight_bytes=4, modules=(word,)))
        tap = end
    return Chain(name, tuple(made), made[0].inputs, made[-1].outputs)


def exact_plan(tasks: Sequence[Chain], backbone: Chain | None = None) -> SharingPlan:
    return make_sharing_plan(tasks, backbone, CutOptions("exact"))


def words(plan: SharingPlan, task: str) -> list[list[str]]:
    return [[block.modules[0] for block in plan.segments[step.segment].blocks] for step in plan.tasks[task]]


BACKBONE = chain("backbone", "a b c d e head".split())


def test_a_late_block_and_a_linear_probe() -> None:
    plan = exact_plan([chain("late", "a b c d X hl".split()), chain("probe", "a b c d e hp".split())], BACKBONE)
    assert words(plan, "late") == [["a", "b", "c", "d"], ["X", "hl"]]
    assert words(plan, "probe") == [["a", "b", "c", "d"], ["e"], ["hp"]]
    roles = [plan.segments[step.segment].role for task in ("late", "probe") for step in plan.tasks[task]]
    assert roles == ["trunk", "late", "trunk", "trunk", "probe"]
    assert plan.forks == {"late": 4, "probe": 5}


def test_a_frozen_suffix_is_one_segment_on_several_inputs() -> None:
    plan = exact_plan([chain("p", "a X c d e hp".split()), chain("q", "a Y c d e hq".split())], BACKBONE)
    assert words(plan, "p") == [["a"], ["X"], ["c", "d", "e"], ["hp"]]
    suffix = plan.tasks["p"][2]
    assert plan.tasks["q"][2].segment == suffix.segment
    assert plan.tasks["q"][2].inputs != suffix.inputs
    assert plan.segments[suffix.segment].role == "shared"


def test_forking_again_after_a_merge() -> None:
    tasks = [chain("p", "a X c d e hp".split()), chain("q", "a X c d Z hq".split()), chain("r", "a b c d e hr".split())]
    plan = exact_plan(tasks, BACKBONE)
    assert words(plan, "q") == [["a"], ["X"], ["c", "d"], ["Z", "hq"]]
    assert plan.tasks["p"][:3] == plan.tasks["q"][:3]


def test_without_a_backbone_the_common_part_is_the_trunk() -> None:
    plan = exact_plan([chain("p", "a b X hp".split()), chain("q", "a b Y hq".split())])
    assert words(plan, "p") == [["a", "b"], ["X", "hp"]]
    assert plan.segments[plan.tasks["p"][0].segment].role == "trunk"


def test_equal_tasks_share_everything_and_strangers_nothing() -> None:
    plan = exact_plan([chain("p", "a b hp".split()), chain("q", "a b hp".split()), chain("r", "x y z".split())])
    assert plan.tasks["p"] == plan.tasks["q"]
    assert words(plan, "r") == [["x", "y", "z"]]


def test_blocks_that_only_the_backbone_has_are_not_exported() -> None:
    plan = exact_plan([chain("p", "a b c d e hp".split())], BACKBONE)
    assert "head" not in {block.modules[0] for segment in plan.segments.values() for block in segment.blocks}


@st.composite
def families(draw: st.DrawFn) -> tuple[list[Chain], Chain | None]:
    """A backbone and descendants in which any blocks may have changed; some blocks may be equal to one another."""
    length = draw(st.integers(1, 8))
    base = [draw(st.sampled_from([f"frozen{i}", "twin"])) for i in range(length)]
    tasks = []
    for index in range(draw(st.integers(1, 5))):
        blocks = [word if draw(st.booleans()) else f"tuned{draw(st.integers(0, 3))}.{i}" for i, word in enumerate(base)]
        tasks.append(chain(f"task{index}", [*blocks, f"head{draw(st.integers(0, 4))}"]))
    return tasks, draw(st.sampled_from([None, chain("backbone", [*base, "head"])]))


@given(families())
def test_segments_compose_to_every_task_and_hold_every_block_once(family: tuple[list[Chain], Chain | None]) -> None:
    tasks, backbone = family
    plan = exact_plan(tasks, backbone)
    occurrences: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for task in tasks:
        steps = plan.tasks[task.name]
        composed = [(name, i, b.content) for name in (s.segment for s in steps) for i, b in enumerate(plan.segments[name].blocks)]
        assert [content for _, _, content in composed] == [block.content for block in task.blocks]
        assert steps[0].inputs == task.blocks[0].inputs
        assert steps[-1].outputs == task.blocks[-1].outputs
        seen: dict[str, int] = {}
        for name, index, content in composed:
            occurrences.setdefault((content, seen.get(content, 0)), set()).add((name, index))
            seen[content] = seen.get(content, 0) + 1
    assert all(len(places) == 1 for places in occurrences.values())


@pytest.mark.slow
@given(families())
def test_the_plan_does_not_depend_on_the_order_of_the_tasks(family: tuple[list[Chain], Chain | None]) -> None:
    tasks, backbone = family
    forward, backward = exact_plan(tasks, backbone), exact_plan(tasks[::-1], backbone)
    assert forward.segments.keys() == backward.segments.keys()
    assert {t: [s.segment for s in steps] for t, steps in forward.tasks.items()} == {
        t: [s.segment for s in steps] for t, steps in backward.tasks.items()
    }


@given(families())
def test_equal_addresses_mean_equal_prefixes(family: tuple[list[Chain], Chain | None]) -> None:
    tasks, _ = family
    for left in tasks:
        for right in tasks:
            length = common_blocks(left, right)
            assert [b.digest for b in left.blocks[:length]] == [b.digest for b in right.blocks[:length]]


@given(families())
def test_the_fork_of_a_task_is_what_it_has_in_common_with_another_at_most(family: tuple[list[Chain], Chain | None]) -> None:
    tasks, backbone = family
    others = {task.name: [backbone] if backbone else [other for other in tasks if other is not task] for task in tasks}
    expected = {task.name: max((common_blocks(task, other) for other in others[task.name]), default=0) for task in tasks}
    assert exact_plan(tasks, backbone).forks == expected
