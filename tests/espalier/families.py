"""Repositories as data, drawn by hypothesis: networks of some blocks, each in a variant that other tasks have, too, or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from contract.repository import Repository, Segment, Step, Task, TensorSpec

ROW = TensorSpec("image", "FP32", (4,))
AGE = TensorSpec("age", "FP32", (2,))


def segment(name: str, block: int, macs: int, inputs: int = 1, reason: str = "") -> Segment:
    weights = 3 * macs + 8
    return Segment(
        name,
        (ROW,) * inputs,
        (ROW,),
        (block, block),
        "",
        8,
        macs,
        weights // 4,
        weights,
        16,
        (f"layer.{block}",),
        reason=reason,
        rows="independent",
    )


def family(
    chains: Sequence[Sequence[int]], macs: Sequence[int], siamese: Sequence[int] = (), also: Sequence[int] = ()
) -> Repository:
    """Return a repository with a task per chain of block variants; a head of its own ends each.

    siamese: tasks whose head also takes what the first block gives. also: tasks that give what is before the head as a second output.
    """
    segments: dict[str, Segment] = {}
    tasks: dict[str, Task] = {}
    for number, chain in enumerate(chains):
        name, tap, taps, steps = f"task-{number}", ROW.name, [], []
        for block, variant in enumerate(chain):
            used = f"b{block}v{variant}"
            segments[used] = segment(used, block, macs[(block + 3 * variant) % len(macs)])
            after = f"{tap}/{used}"
            steps.append(Step(used, (tap,), (after,)))
            taps.append(after)
            tap = after
        head = f"head-{number}"
        both = number in siamese and len(taps) > 1
        segments[head] = segment(head, len(chain), macs[number % len(macs)] // 1000, 1 + both)
        outputs = [name]
        if number in also:
            outputs = [f"{name}.logits", f"{name}.features"]
            steps[-1] = Step(steps[-1].segment, steps[-1].inputs, (outputs[1],))
            tap = outputs[1]
        steps.append(Step(head, (taps[0], tap) if both else (tap,), (outputs[0],)))
        tasks[name] = Task(name, tuple(steps), (ROW,), tuple(TensorSpec(output, "FP32", (4,)) for output in outputs), 8)
    return Repository(Path("nowhere"), segments, tasks)


@st.composite
def families(draw: st.DrawFn) -> Repository:
    """Draw a family of 1 to 7 tasks with 1 to 5 blocks in up to 3 variants: forks, merges, forks after merges, nothing in common."""
    blocks = draw(st.integers(1, 5))
    chains = draw(st.lists(st.lists(st.integers(0, 2), min_size=blocks, max_size=blocks), min_size=1, max_size=7))
    macs = draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
    numbers = st.sets(st.integers(0, len(chains) - 1))
    return family(chains, macs, sorted(draw(numbers)), sorted(draw(numbers)))


@st.composite
def trees(draw: st.DrawFn) -> Repository:
    """Draw a family without merges: what differs once never meets again."""
    repository = draw(families())
    chains = []
    for task in repository.tasks.values():
        seen, chain = 0, []
        for block, step in enumerate(task.steps[:-1]):
            seen = 3 * seen + int(step.segment.split("v")[1])
            chain.append(seen if block else seen % 3)
        chains.append(chain)
    return family(chains, [5, 7, 3])
