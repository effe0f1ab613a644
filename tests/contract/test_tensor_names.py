"""What tensors of tasks are called besides: read back as written, unambiguous, and kept from version to version."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.repository.config import parse_task, task_config
from contract.repository.model import Step, Task, TensorSpec
from contract.repository.versions import inherited, replaced
from contract.tensor_names import names_from_json, names_to_json, original_names, succeeding

WORDS = st.sampled_from(["a", "b", "c", "x", "y", "é:0"])
NAMES = st.dictionaries(st.sampled_from("abc"), st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple))


def task(**names: tuple[str, ...]) -> Task:
    inputs, outputs = (TensorSpec("image", "FP32", (2,)),), (TensorSpec("kind", "FP32", (3,)),)
    return Task("kind", (Step("trunk-00-00-12345678", ("image",), ("kind",)),), inputs, outputs, 4, names=names)


@given(names=NAMES)
def test_names_are_read_back_as_they_were_written(names: dict[str, tuple[str, ...]]) -> None:
    assert names_from_json(names_to_json(names)) == names


def test_a_task_keeps_its_names_in_its_configuration() -> None:
    config = task_config(task(image=("x",), kind=("y", "z")))
    assert parse_task(config, (), "1").names == {"image": ("x",), "kind": ("y", "z")}
    assert "tensor_names" not in task_config(task()).parameters
    config.parameters["tensor_names"].string_value = '["x"]'
    with pytest.raises(RepositoryError, match=r"configuration of task 'kind' is incomplete or damaged \(names of tensors are"):
        parse_task(config, (), "1")


def test_only_names_that_differ_and_say_what_is_meant_are_kept() -> None:
    assert original_names(["image", "age"], ["pixels", "age"]) == {"image": ("pixels",)}
    assert original_names(["kind"], ["kind"]) == {}
    assert original_names(["left", "right"], ["right", "left"]) == {}
    assert original_names(["image", "age"], ["age", "years"]) == {}


@example(old={"b": ("c",)}, new={"a": ("a", "b", "c")}, both={"a", "b"})
@given(old=NAMES, new=NAMES, both=st.sets(st.sampled_from("abc")))
def test_no_name_means_two_tensors_and_what_was_told_stays(
    old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]], both: set[str]
) -> None:
    kinds = [["a", "b"], ["c"]]
    told = succeeding({}, old, [], kinds)  # as an export makes them: no name of one tensor is another's
    found = succeeding(told, new, sorted(both), kinds)
    for kind in kinds:
        called = [(one, name) for name in kind for one in found.get(name, ())]
        assert len({one for one, _ in called}) == len(called)
        assert all(one not in kind or one == name for one, name in called)
        for name in both.intersection(kind):
            assert found.get(name, (name,))[0] == told.get(name, (name,))[0]


def test_a_version_that_comes_says_what_clients_were_told() -> None:
    first, second = task(image=("x",)), task(image=("pixels",), kind=("logits",))
    after = replaced(first, replace(inherited(first, second)[0], labels=("a", "b", "c")))
    assert after.names == {"image": ("x", "pixels"), "kind": ("kind", "logits")}
    assert replaced(first, inherited(first, second)[0]) == first
    assert inherited(first, task())[0].names == {"image": ("x",)}
