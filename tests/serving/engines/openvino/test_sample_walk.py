"""Which segments may be rounded: settled on made-up errors, so that every way that a repository can go wrong is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.repository import Canary, Task
from serving.engines.openvino.agreement import difference, first_class_differs
from serving.engines.openvino.sample_walk import Way, Ways, settle, with_records
from serving.errors import LessPrecise
from tests.serving.engines.openvino.large import SAMPLE, recorded
from tests.serving.nets import CHAINS, LABELS, LAYERS, make_repository, make_task, whole

Errors = Mapping[tuple[str, Way], float]
TASKS = [recorded(make_task(name), whole(name, SAMPLE)) for name in CHAINS]


class Machine:
    """Computes the family of nets.py, each segment wrong by so many units of the spread in some ways. gain: of what comes in."""

    def __init__(self, errors: Errors, gain: Mapping[str, float] | None = None) -> None:
        self.errors, self.gain = errors, gain or {}
        self.open: set[str] = set()

    def run(self, name: str, way: Way, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        self.open.add(name)
        found = LAYERS[name](inputs[0]).astype(np.float32)
        found = found + self.gain.get(name, 0.0) * np.asarray(inputs[0], np.float32).sum()
        error = self.errors.get((name, way), 0.0) * found.std()
        return [found + np.float32(error) * np.sign(np.arange(found.size) % 2 - 0.5).reshape(found.shape)]

    def settled(self, way: Way = Way.bf16, tasks: Sequence[Task] = TASKS, fixed: Sequence[str] = ()) -> Ways:
        ways = Ways(dict.fromkeys(LAYERS, way))
        settle(tasks, ways, fixed, self.run, self.open.discard)
        assert not self.open  # each is let go of
        return ways


def test_without_errors_all_run_in_bf16_and_nothing_is_said() -> None:
    ways = Machine({}).settled()
    assert set(ways.of.values()) == {Way.bf16}
    assert not ways.said


def test_a_segment_that_rounds_too_much_stays_in_fp32_and_a_line_says_by_how_much() -> None:
    ways = Machine({("mid", Way.bf16): 0.5}).settled()
    assert {name for name, way in ways.of.items() if way is not Way.bf16} == {"mid"}
    assert list(ways.said.values()) == [
        "Segment 'mid' stays in fp32: on OpenVINO in bf16 its answer to the sample differs by 0.5 of its spread, where 0.1 is allowed."
    ]


def test_what_differs_in_fp32_too_is_left_to_onnx_runtime() -> None:
    ways = Machine({("mid", Way.bf16): 0.5, ("mid", Way.fp32): 0.3}).settled()
    assert ways.of["mid"] is Way.elsewhere
    assert "Segment 'mid' runs on ONNX Runtime: on OpenVINO in fp32 its answer to the sample differs by" in ways.said["mid"]


def test_what_enlarges_the_errors_before_it_has_those_computed_in_fp32() -> None:
    ways = Machine({("trunk", Way.bf16): 0.01}, gain={"branch-late": 20.0}).settled()
    assert ways.of["trunk"] is Way.fp32
    assert "'branch-late'" in ways.said["trunk"]
    assert ways.of["mid"] is Way.bf16  # is not before it


def test_a_small_error_in_fp32_is_no_reason_in_bf16_and_one_in_fp32() -> None:
    machine = Machine({("mid", Way.fp32): 0.05, ("mid", Way.bf16): 0.05})
    assert machine.settled(Way.bf16).of["mid"] is Way.bf16
    assert machine.settled(Way.fp32).of["mid"] is Way.elsewhere  # the tasks allow 0.02


def test_what_is_served_stays_as_it_is_and_the_load_is_refused() -> None:
    machine = Machine({("trunk", Way.bf16): 0.01}, gain={"branch-late": 20.0})
    with pytest.raises(
        LessPrecise, match=r"segment 'branch-late' to the sample .* because of how trunk is computed; start the server"
    ):
        machine.settled(fixed=["trunk"])


def test_a_canary_is_tried_too() -> None:
    task = TASKS[-1]
    other = recorded(replace(make_task("probe"), name="late", version="2"), whole("probe", SAMPLE))
    repository = make_repository()
    tried = with_records(
        replace(repository, tasks={"late": replace(task, canary=Canary(other, 0.5)), "probe": make_task("probe")})
    )
    assert [task.version for task in tried] == ["1", "2"]  # and not what has no record
    ways = Machine({("head-probe", Way.bf16): 0.5}).settled(tasks=tried)
    assert ways.of["head-probe"] is Way.fp32


@settings(max_examples=30)
@given(
    errors=st.dictionaries(st.tuples(st.sampled_from(sorted(LAYERS)), st.sampled_from([Way.bf16, Way.fp32])), st.floats(0, 1)),
    gain=st.dictionaries(st.sampled_from(sorted(LAYERS)), st.floats(0, 2)),
    way=st.sampled_from([Way.bf16, Way.fp32]),
)
def test_whatever_the_errors_every_task_answers_within_what_is_allowed(
    errors: Errors, gain: Mapping[str, float], way: Way
) -> None:
    machine = Machine(errors, gain)
    ways = machine.settled(way)
    for task, chain in CHAINS.items():
        right = found = SAMPLE
        for name in chain:
            right, found = machine.run(name, Way.elsewhere, [right])[0], machine.run(name, ways.of[name], [found])[0]
        assert difference(right, found, typical=False) <= 0.1
        assert task not in LABELS or not first_class_differs(right, found)
    assert set(ways.said) == {name for name, chosen in ways.of.items() if chosen is not way}


def test_differences_are_in_units_of_the_spread_and_nothing_passes_for_a_number_that_is_none() -> None:
    right = np.array([[1.0, -1.0, 1.0, -1.0]], np.float32)
    assert difference(right, right, False) == 0
    assert difference(right, right + np.float32([[0.5, 0, 0, 0]]), False) == pytest.approx(0.5)
    assert difference(right, right + np.float32([[0.5, 0, 0, 0]]), True) == pytest.approx(0.25)
    for wrong in (right[:, :3], right.astype(np.float64), np.full_like(right, np.nan), np.full_like(right, np.inf)):
        assert difference(right, wrong, True) == np.inf
    masked = np.array([[0.0, -np.inf, np.nan]], np.float32)
    assert difference(masked, masked, False) == 0
    assert difference(np.ones((1, 3)), np.ones((1, 3)), False) == 0
    assert difference(np.ones((1, 3)), np.full((1, 3), 1.5), False) > 1


def test_another_first_class_is_none_where_both_are_as_good() -> None:
    scores = np.array([[0.0, 5.0, 5.001, 1.0]])
    assert not first_class_differs(scores, np.array([[0.0, 5.1, 5.0, 1.0]]))
    assert first_class_differs(np.array([[0.0, 4.0, 5.0, 1.0]]), np.array([[0.0, 5.1, 5.0, 1.0]]))
