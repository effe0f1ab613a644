"""Properties of execution plans, on the family of nets.py and on random families."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import DifferentInputs, NoTask, UnknownTask
from contract.plan import ExecutionPlan, PlanStep, make_plan
from contract.repository import Repository, Segment, Step, Task, TensorSpec
from contract.repository.free_sizes import FreeSize
from serving.catalog import Catalog
from serving.engines.base import Answer
from serving.engines.in_memory import InMemoryEngine
from tests.serving.nets import CHAINS, IMAGE, LAYERS, TASK_NAMES, images, make_repository, whole

REPOSITORY = make_repository()
some_tasks = st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True)


def run(plan: ExecutionPlan, rows: int = 2) -> Answer:
    async def infer() -> Answer:
        engine = InMemoryEngine(LAYERS)
        await engine.start()
        return await engine.infer(plan, {"image": images(rows)})

    return asyncio.run(infer())


@settings(max_examples=30)
@given(some_tasks)
def test_each_segment_runs_once_and_only_if_a_requested_task_needs_it(tasks: list[str]) -> None:
    ran = [segment_run.segment for segment_run in run(make_plan(REPOSITORY, tasks)).runs]
    assert sorted(ran) == sorted({segment for task in tasks for segment in CHAINS[task]})


@settings(max_examples=30)
@given(some_tasks)
def test_an_answer_is_that_of_the_whole_network_whatever_else_is_asked_for(tasks: list[str]) -> None:
    answer = run(make_plan(REPOSITORY, tasks))
    assert list(answer.outputs) == tasks
    for task in tasks:
        np.testing.assert_allclose(answer.outputs[task], whole(task, images(2)), rtol=1e-5, atol=1e-6)


def test_streams_through_a_frozen_suffix_are_one_batch() -> None:
    answer = run(make_plan(REPOSITORY, ["probe", "colour", "parity"]), rows=2)
    assert {segment_run.segment: segment_run.rows for segment_run in answer.runs} == {
        "trunk": 2, "mid": 2, "tuned-a": 2, "tuned-b": 2, "suffix": 6, "head-probe": 2, "head-colour": 2, "head-parity": 2
    }  # fmt: skip


def test_a_task_asked_for_twice_runs_once() -> None:
    assert make_plan(REPOSITORY, ["late", "late"]) == make_plan(REPOSITORY, ["late"])


def test_frozen_blocks_that_occur_twice_in_a_row_run_one_after_the_other() -> None:
    # x = twice(twice(image)) for "deep", twice(image) for "shallow": the first application is shared, the second must wait.
    spec = TensorSpec("input", "FP32", (1,))
    segment = Segment("twice", (spec,), (TensorSpec("output", "FP32", (1,)),), (0, 0), "", 8, rows="independent")
    image = TensorSpec("image", "FP32", (1,))
    deep = (Step("twice", ("image",), ("tap",)), Step("twice", ("tap",), ("deep",)))
    shallow = (Step("twice", ("image",), ("shallow",)),)
    tasks = {
        name: Task(name, steps, (image,), (TensorSpec(name, "FP32", (1,)),), 8)
        for name, steps in (("deep", deep), ("shallow", shallow))
    }
    plan = make_plan(Repository(Path(), {"twice": segment}, tasks), ["deep", "shallow"])
    assert plan.steps == (PlanStep("twice", (("image",),), (("tap",),)), PlanStep("twice", (("tap",),), (("deep",),)))
    assert plan.outputs == {"deep": "deep", "shallow": "tap"}


@st.composite
def random_families(draw: st.DrawFn) -> Repository:
    """Tasks that are random chains over a few segments; equal prefixes share their tensors' names."""
    chains = draw(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5))
    row = ("FP32", (1,))
    segments = {
        name: Segment(name, (TensorSpec("input", *row),), (TensorSpec("output", *row),), (0, 0), "", 8, rows="independent")
        for name in "abcde"
    }
    tasks = {}
    for number, chain in enumerate(chains):
        name = f"task{number}"
        taps = ["image", *("".join(chain[: end + 1]) for end in range(len(chain) - 1)), name]
        steps = tuple(Step(segment, (taps[place],), (taps[place + 1],)) for place, segment in enumerate(chain))
        tasks[name] = Task(name, steps, (TensorSpec("image", *row),), (TensorSpec(name, *row),), 8)
    return Repository(Path(), segments, tasks)


@settings(max_examples=50)
@given(random_families())
def test_random_families_compute_what_each_chain_computes_and_nothing_twice(family: Repository) -> None:
    primes = dict(zip("abcde", (2, 3, 5, 7, 11), strict=True))
    plan = make_plan(family, list(family.tasks))

    async def infer() -> Answer:
        engine = InMemoryEngine({name: lambda x, p=prime: x * 13 % 997 + p for name, prime in primes.items()})
        await engine.start()
        return await engine.infer(plan, {"image": np.array([[1], [5]])})

    answer = asyncio.run(infer())
    for name, task in family.tasks.items():
        value = np.array([[1], [5]])
        for step in task.steps:
            value = value * 13 % 997 + primes[step.segment]
        assert (answer.outputs[name] == value).all()
    # Each distinct (chain up to here) is computed exactly once.
    prefixes = {
        tuple(step.segment for step in task.steps[: end + 1]) for task in family.tasks.values() for end in range(len(task.steps))
    }
    applications = Counter({step.segment: 0 for step in plan.steps})
    for step in plan.steps:
        applications[step.segment] += len(step.inputs)
    assert applications == Counter(prefix[-1] for prefix in prefixes)


def test_no_task_and_unknown_tasks_are_refused_by_name() -> None:
    with pytest.raises(NoTask, match="name at least one of: colour, late, parity, probe"):
        make_plan(REPOSITORY, [])
    with pytest.raises(UnknownTask, match="Unknown task 'cats'; known are: colour, late, parity, probe"):
        make_plan(REPOSITORY, ["probe", "cats"])


def test_tasks_with_different_inputs_are_refused_together() -> None:
    other = Task("other", (), (TensorSpec(IMAGE.name, "UINT8", (4, 4, 3)),), (TensorSpec("other", "FP32", (1,)),), 8)
    repository = Repository(Path(), REPOSITORY.segments, {**REPOSITORY.tasks, "other": other})
    with pytest.raises(DifferentInputs, match="'late' and 'other' take different inputs"):
        make_plan(repository, ["late", "other"])


def test_a_plan_for_tasks_with_different_inputs_counts_the_text_whichever_is_named_first() -> None:
    """One takes an image of fixed size, the other a text of a free length."""
    ids = TensorSpec("ids", "INT64", (-1,), axes=("length",))
    sizes = {"length": FreeSize(16, most=64)}
    text = Task("text", (Step("embed", ("ids",), ("text",)),), (ids,), (TensorSpec("text", "FP32", (3,)),), 8, sizes=sizes)
    takes = (TensorSpec("input", "INT64", (-1,), axes=("length",)),)
    embed = Segment("embed", takes, (TensorSpec("output", "FP32", (3,)),), (0, 0), "e", 8, sizes=sizes, rows="independent")
    repository = Repository(Path(), {**REPOSITORY.segments, "embed": embed}, {**REPOSITORY.tasks, "text": text})
    for names in (["late", "text"], ["text", "late"]):
        plan = make_plan(repository, names)
        assert {*plan.inputs} == {IMAGE.name, "ids"}
        assert plan.volume == make_plan(repository, ["text"]).volume
        assert plan.volume is not None
    model = Catalog(repository).find("all_tasks")
    assert {spec.name: spec.shape for spec in model.largest_inputs()} == {IMAGE.name: IMAGE.shape, "ids": (64,)}
    assert {spec.name: spec.shape for spec in model.example_inputs()} == {IMAGE.name: IMAGE.shape, "ids": (16,)}


def test_a_catalogue_remembers_plans_and_forgets_before_there_are_many() -> None:
    catalog = Catalog(REPOSITORY, most_plans=3)
    model = catalog.find("all_tasks")
    first = catalog.plan(model, ["late", "probe"])
    assert catalog.plan(model, ("late", "probe")) is first
    for names in itertools.permutations(TASK_NAMES):
        assert list(catalog.plan(model, names).outputs) == list(names)
        assert len(catalog._plans) <= 3
    assert catalog.plan(model, ["late", "probe"]) == first
