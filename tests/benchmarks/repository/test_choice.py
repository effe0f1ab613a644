"""Which tasks of a repository are measured, and in which requests: decided without measuring anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.repository.choice import ALL, ONE, SOME, Asked, choose, own_parts, spread
from contract.errors import UnknownTask
from contract.plan import make_plan
from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository.free_sizes import FreeSize
from contract.repository.model import Plain

IMAGE = TensorSpec("image", "UINT8", (8, 8, 3))


def segment(name: str, macs: int) -> Segment:
    return Segment(name, (IMAGE,), (IMAGE,), (0, 0), "", 8, macs=macs, weight_bytes=macs, rows="independent")


def task(name: str, taken: TensorSpec = IMAGE, *, size: FreeSize | None = None) -> Task:
    steps = (Step(f"trunk-{taken.name}", (taken.name,), ("tap",)), Step(f"head-{name}", ("tap",), (name,)))
    return Task(name, steps, (taken,), (TensorSpec(name, "FP32", (4,)),), 8, sizes={"length": size} if size else {})


def repository(*tasks: Task) -> Repository:
    """Heads of 1, 2, 3, ... MACs, in the order of the tasks, behind trunks of 100."""
    segments = {f"head-{one.name}": segment(f"head-{one.name}", place) for place, one in enumerate(tasks, 1)}
    trunks = {one.steps[0].segment: segment(one.steps[0].segment, 100) for one in tasks}
    return Repository(Path("nowhere"), {**trunks, **segments}, {one.name: one for one in tasks})


def test_the_own_part_is_what_no_other_task_runs() -> None:
    found = own_parts(repository(task("c"), task("b"), task("a")))
    assert [(part.task, part.segments, part.macs) for part in found.values()] == [("c", 1, 1), ("b", 1, 2), ("a", 1, 3)]
    assert own_parts(repository(task("a")))["a"].macs == 101  # a lone task has its trunk for itself


def test_a_few_tasks_are_all_measured_alone_some_and_together() -> None:
    found = choose(repository(*map(task, "abcde")), (), 16, 0)
    assert [part.task for part in found.parts] == [*"abcde"]
    alone = [Asked(ONE, (name,)) for name in "ace"]
    assert found.requests == (*alone, Asked(SOME, ("a", "c", "e")), Asked(ALL, tuple("abcde")))
    assert found.notes == ()


def test_of_a_thousand_tasks_a_choice_is_measured_and_it_is_said() -> None:
    names = [f"task-{number:04}" for number in range(1000)]
    found = choose(repository(*map(task, names)), (), 5, 0)
    assert [part.task for part in found.parts] == [names[place] for place in (0, 250, 500, 749, 999)]
    assert found.requests[-1].tasks == tuple(part.task for part in found.parts)
    assert found.notes == (
        "Of 1,000 tasks 5 are measured, evenly from the one with the least own part to the one with the largest.",
    )


def test_as_many_networks_are_measured_as_fit_into_half_of_the_memory() -> None:
    # The largest has 105 bytes, in two sessions: three of them take 630.
    found = choose(repository(*map(task, "abcde")), (), 16, 2 * 640)
    assert len(found.parts) == 3
    assert found.notes[0] == "Separate networks of 3 tasks fit into half of the memory, all that are open at a time."


def test_one_task_is_asked_for_once() -> None:
    assert choose(repository(task("a")), (), 16, 0).requests == (Asked(ONE, ("a",)),)
    assert [asked.kind for asked in choose(repository(task("a"), task("b")), (), 16, 0).requests] == [ONE, ONE, ALL]


def test_tasks_that_were_named_are_measured_whatever_there_is() -> None:
    whole = repository(*map(task, "abcde"))
    assert [part.task for part in choose(whole, ("d", "b"), 1, 1).parts] == ["b", "d"]
    with pytest.raises(UnknownTask, match="Unknown task 'x'; known are: "):
        choose(whole, ("a", "x"), 16, 0)


def test_tasks_that_call_different_inputs_by_one_name_are_asked_for_apart() -> None:
    other = TensorSpec("image", "FP32", (3, 8, 8))
    whole = repository(task("a"), task("b", other), task("c"))
    found = choose(whole, (), 16, 0)
    assert [asked.tasks for asked in found.requests] == [("a",), ("b",), ("c",), ("a", "c")]
    assert found.notes == ("One request asks for 2 tasks at most: b take other inputs, or sizes, by the same names.",)


def test_tasks_that_take_different_inputs_are_asked_for_together() -> None:
    found = choose(repository(task("a"), task("b", TensorSpec("ids", "INT64", (4,)))), (), 16, 0)
    assert found.requests[-1] == Asked(ALL, ("a", "b"))


def test_tasks_without_a_size_in_common_are_asked_for_apart() -> None:
    short, long = FreeSize(4, 1, 8), FreeSize(16, 9, 32)
    found = choose(repository(task("a", size=short), task("b", size=long), task("c", size=FreeSize(8))), (), 16, 0)
    assert found.requests[-1].tasks == ("a", "c")


def test_models_that_were_not_exported_here_are_measured_where_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(bytes(100))
    made = replace(repository(task("a")), path=tmp_path)
    plain = Plain("b.onnx", "")
    only = Task("b", (Step("b@1", ("image",), ("y",)),), (IMAGE,), (TensorSpec("y", "FP32", (4,)),), 8, plain=plain)
    its = {"b@1": replace(segment("b@1", 0), plain=plain)}
    both = replace(made, tasks={**made.tasks, "b": only}, segments={**made.segments, **its})
    assert [part.task for part in choose(both, (), 16, 0).parts] == ["a"]
    assert choose(both, (), 16, 0).notes == ("Left out: b, which espalier did not export: such models share nothing.",)
    alone = choose(replace(made, tasks={"b": only}, segments=its), (), 16, 0)
    assert alone.requests == (Asked(ONE, ("b",)),)
    assert "each model is a network by itself" in alone.notes[0]


@given(st.integers(1, 60), st.integers(1, 20))
def test_a_spread_keeps_order_and_ends(length: int, count: int) -> None:
    names = [f"{place:02}" for place in range(length)]
    found = spread(names, count)
    assert len(found) == len(set(found)) == min(length, count)
    assert list(found) == sorted(found)
    if count > 1:
        assert (found[0], found[-1]) == (names[0], names[-1])


@given(st.lists(st.tuples(st.sampled_from(["image", "ids"]), st.sampled_from(["UINT8", "FP32"])), min_size=1, max_size=8))
def test_whatever_tasks_take_a_request_for_all_of_them_can_be_planned(kinds: list[tuple[str, str]]) -> None:
    tasks = [task(f"t{place}", TensorSpec(name, dtype, (4,))) for place, (name, dtype) in enumerate(kinds)]
    whole = repository(*tasks)
    for asked in choose(whole, (), 16, 0).requests:
        make_plan(whole, asked.tasks)
