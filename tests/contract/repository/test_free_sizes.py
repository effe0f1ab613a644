"""Free sizes go through a configuration, and a damaged one is refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.repository.config import parse_segment, parse_task, segment_config, task_config
from contract.repository.free_sizes import FreeSize, sizes_from_json, sizes_to_json
from contract.repository.model import Segment, TensorSpec
from tests.serving.nets import make_task

IDS = TensorSpec("input", "INT64", (-1,), axes=("length",))
STATE = TensorSpec("output", "FP32", (-1, 8), axes=("length", ""))
SIZES = {"length": FreeSize(16, 1, 512)}
SEGMENT = Segment("trunk", (IDS,), (STATE,), (0, 3), "ab" * 32, 8, sizes=SIZES)


def test_a_segment_keeps_its_free_sizes_and_is_warmed_at_the_reference() -> None:
    config = segment_config(SEGMENT)
    assert list(config.input[0].dims) == [-1]
    assert list(config.model_warmup[0].inputs["input"].dims) == [16]
    found = parse_segment(config, "1")
    assert found == SEGMENT
    assert [spec.axes for spec in (*found.inputs, *found.outputs)] == [("length",), ("length", "")]


def test_a_task_keeps_its_free_sizes_and_what_its_inputs_may_be() -> None:
    task = replace(make_task("probe", None), inputs=(replace(IDS, name="ids"),), sizes=SIZES, values={"ids": (0, 30521)})
    found = parse_task(task_config(task), task.labels, task.version)
    assert found == task
    assert found.inputs[0].axes == ("length",)


def test_a_shape_at_sizes_has_them_in_place_of_what_is_free() -> None:
    assert STATE.shape_at({"length": 5}) == (5, 8)
    assert TensorSpec("x", "FP32", (3, 8)).shape_at({}) == (3, 8)
    with pytest.raises(KeyError):
        STATE.shape_at({})


def test_steps_are_recorded_only_where_there_are_some() -> None:
    assert sizes_to_json(SIZES) == '{"length": {"least": 1, "most": 512, "reference": 16}}'  # as repositories of before have it
    stepped = {"height": FreeSize(64, 31, 640, 32, 2)}
    assert sizes_from_json(sizes_to_json(stepped)) == stepped


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.one_of(st.none(), st.integers(0, 40)), st.integers(0, 70))
def test_the_nearest_sizes_are_the_nearest_that_are_taken(
    step: int, window: int, least: int, more: int | None, size: int
) -> None:
    known = FreeSize(least, least, None if more is None else least + more, step, min(window, step))
    taken = [other for other in range(100) if known.takes(other)]
    assert least in taken
    nearest = [*[other for other in taken if other <= size][-1:], *[other for other in taken if other >= size][:1]]
    assert known.nearest(size) == tuple(dict.fromkeys(nearest))


@pytest.mark.parametrize("ends", [(0, 0, None), (4, 5, None), (8, 1, 7), (3, 4, 2), (4, 1, 8, 2), (4, 4, 8, 0), (4, 4, 8, 2, 3)])
def test_sizes_that_contradict_each_other_are_refused(ends: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a free size has reference"):
        FreeSize(*ends)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("free_sizes", '{"length": 5}'),
        ("free_sizes", '{"length": {"reference": 4, "least": 4, "most": 8, "step": "2"}}'),
        ("free_sizes", '{"length": {"reference": 0, "least": 0, "most": null}}'),
        ("axes", "[]"),
        ("axes", '{"input": ["", "length"]}'),
        ("axes", '{"output": ["", "length"]}'),
        ("axes", "{"),
    ],
)
def test_a_damaged_configuration_is_refused(key: str, text: str) -> None:
    config = segment_config(SEGMENT)
    config.parameters[key].string_value = text
    with pytest.raises(RepositoryError, match="incomplete or damaged"):
        parse_segment(config, "1")


def test_damaged_ranges_are_refused() -> None:
    config = task_config(make_task("probe", None))
    config.parameters["value_ranges"].string_value = '{"ids": 5}'
    with pytest.raises(RepositoryError, match="incomplete or damaged"):
        parse_task(config, (), "1")
