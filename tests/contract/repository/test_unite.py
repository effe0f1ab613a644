"""One ensemble of many tasks: every computation once, every output under its name, in a way that Triton can execute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.repository import Repository, Step, Task, TensorSpec
from contract.repository.config import copy_configs
from contract.repository.unite import Copy, copy_model, ensemble_of
from tests.espalier.families import families
from tests.serving.nets import IMAGE, make_repository

KIND = TensorSpec("x", "FP32", (4,))


@st.composite
def tasks_with_equals(draw: st.DrawFn) -> list[Task]:
    """Draw tasks of which some are equal to others, or end where others go on, or start from such."""
    repository: Repository = draw(families())
    tasks = list(repository.tasks.values())
    for number, task in enumerate(draw(st.lists(st.sampled_from(tasks), max_size=3))):
        name = f"also-{number}"
        length = draw(st.integers(1, len(task.steps)))
        steps = [*task.steps[:length]]
        if len(task.outputs) > 1:
            continue
        steps[-1] = replace(steps[-1], outputs=(name,))
        outputs = (TensorSpec(name, "FP32", task.outputs[0].shape),)
        tasks.append(replace(task, name=name, steps=tuple(steps), outputs=outputs))
    return draw(st.permutations(tasks))


def values(steps: list[Step], copies: list[Copy], inputs: list[str]) -> dict[str, object]:
    """Return how each tensor is computed, as an expression. Raises KeyError when something is needed before it is there."""
    known: dict[str, object] = {name: name for name in inputs}
    for step in steps:
        arguments = tuple(known[name] for name in step.inputs)
        for index, name in enumerate(step.outputs):
            assert name not in known
            known[name] = (step.segment, index, arguments)
    for copy in copies:
        assert copy.spec.name not in known
        known[copy.spec.name] = known[copy.source]
    return known


@pytest.mark.slow
@settings(max_examples=50)
@given(tasks_with_equals())
def test_an_ensemble_computes_everything_once_and_takes_no_output_of_its_own(tasks: list[Task]) -> None:
    steps, copies = ensemble_of(tasks)
    inputs = [spec.name for spec in tasks[0].inputs]
    found = values(steps, copies, inputs)
    for task in tasks:
        alone = values([*task.steps], [], inputs)
        for output in task.outputs:
            assert found[output.name] == alone[output.name]
    computed = [(step.segment, tuple(found[name] for name in step.inputs)) for step in steps]
    assert len(computed) == len(set(computed))
    outputs = {output.name for task in tasks for output in task.outputs}
    assert not outputs & {name for step in steps for name in step.inputs}
    assert not outputs & {copy.source for copy in copies}


def test_where_no_outputs_are_equal_nothing_is_copied() -> None:
    tasks = list(make_repository().tasks.values())
    steps, copies = ensemble_of(tasks)
    assert copies == []
    assert copy_configs(tasks) == {}
    assert steps == list(dict.fromkeys(step for task in tasks for step in task.steps))


@pytest.mark.parametrize("dtype", ["FP32", "UINT8", "BYTES", "FP16"])
def test_a_copy_is_a_copy(dtype: str) -> None:
    kinds = {"FP32": np.float32, "UINT8": np.uint8, "BYTES": np.object_, "FP16": np.float16}
    rows = np.array([["1", "2"]]).astype(kinds[dtype])
    model = copy_model(Copy("tap", TensorSpec("one", dtype, (2,))))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["output"], {"input": rows})[0], rows)


def test_tensors_of_a_kind_share_a_model_and_others_do_not() -> None:
    one, two = Copy("tap", KIND), Copy("other", TensorSpec("y", "FP32", (4,)))
    assert one.model == two.model
    assert (
        len({one.model, Copy("tap", TensorSpec("x", "FP32", (5,))).model, Copy("tap", TensorSpec("x", "FP16", (4,))).model}) == 3
    )
    assert IMAGE.name not in one.model
