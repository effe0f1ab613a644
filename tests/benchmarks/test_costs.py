from __future__ import annotations

from pathlib import Path

from contract.costs import separate_cost, shared_cost
from contract.repository import Repository, Segment, Step, Task, TensorSpec

ROW = TensorSpec("image", "FP32", (4,))


def repository() -> Repository:
    """A trunk (100 MACs), two branches (10 each), a suffix on both streams (5), two heads (1 each)."""
    macs = {"trunk": 100, "left": 10, "right": 10, "suffix": 5, "head-l": 1, "head-r": 1}
    segments = {
        name: Segment(
            name, (ROW,), (ROW,), (0, 0), "", 8, macs=count, parameters=count, weight_bytes=4 * count, rows="independent"
        )
        for name, count in macs.items()
    }
    tasks = {}
    for name, branch, head in (("l", "left", "head-l"), ("r", "right", "head-r")):
        chain = [("trunk", "image", "t"), (branch, "t", f"{name}1"), ("suffix", f"{name}1", f"{name}2"), (head, f"{name}2", name)]
        tasks[name] = Task(
            name,
            tuple(Step(segment, (start,), (end,)) for segment, start, end in chain),
            (ROW,),
            (TensorSpec(name, "FP32", (4,)),),
            8,
        )
    return Repository(Path(), segments, tasks)


def test_a_shared_request_counts_the_trunk_once_and_the_suffix_once_per_stream() -> None:
    assert shared_cost(repository(), ["l", "r"]).macs == 100 + 10 + 10 + 5 + 5 + 1 + 1
    assert shared_cost(repository(), ["l", "r"]).weight_bytes == 4 * (100 + 10 + 10 + 5 + 1 + 1)


def test_separate_networks_count_everything_per_task() -> None:
    assert separate_cost(repository(), ["l", "r"]).macs == 2 * (100 + 10 + 5 + 1)
    assert separate_cost(repository(), ["l"]) == shared_cost(repository(), ["l"])
