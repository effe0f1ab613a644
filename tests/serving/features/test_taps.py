"""What is left of a plan when some of its tensors are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from contract.plan import make_plan
from contract.repository import Repository
from contract.repository.model import Step, TensorSpec
from serving.engines.base import Call, SegmentRun
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.features.taps import PlanTaps, worth_keeping
from tests.serving.nets import LAYERS, make_repository, make_task

SPEC = TensorSpec("image", "FP32", (3,))
FUNCTIONS: Mapping[str, Callable[..., tuple[Any, ...]]] = {
    "trunk": lambda x: (x + 1, x + 2),
    "neck": lambda x: (x * x,),
    "left": lambda x, y: (x * 3 + y,),
    "right": lambda x, y: (x * 4 + y,),
}


def _skipping() -> Repository:
    """Two tasks of a trunk with two outputs: one goes straight to both heads, the other through a neck."""
    segments = {
        name: replace(LAYERS["mid"].segment(), name=name, inputs=(SPEC,) * inputs, outputs=(SPEC,) * outputs)
        for name, (inputs, outputs) in {"trunk": (1, 2), "neck": (1, 1), "left": (2, 1), "right": (2, 1)}.items()
    }
    trunk = (Step("trunk", ("image",), ("straight", "middle")), Step("neck", ("middle",), ("deep",)))
    tasks = {
        name: replace(
            make_task("late", None),
            name=name,
            inputs=(SPEC,),
            outputs=(replace(SPEC, name=name),),
            steps=(*trunk, Step(name, ("straight", "deep"), (name,))),
            labels=(),
        )
        for name in ("left", "right")
    }
    return replace(make_repository(), segments=segments, tasks=tasks)


def test_one_of_two_tensors_that_is_there_makes_no_step_run_before_the_other_is() -> None:
    """The trunk has to run for the other; that it gives again what is there is no news to the head."""
    repository = _skipping()
    taps = PlanTaps(make_plan(repository, ["right"]), worth_keeping(repository))
    assert taps.taps.keys() == {"straight", "deep"}
    left = taps.remainder({"straight"}, {"straight"})
    image = np.array([[1, 2, 3]], np.float32)
    flow = PlanExecution(left.plan, {"image": image, "straight": image + 1}, Call(), 0)
    ready = flow.start()
    while ready:
        step = ready.pop(0)  # of what may run, any may be the first
        ready += flow.finish(step, FUNCTIONS[step.segment](*step.inputs()), SegmentRun(step.segment, 1, 0.0))
    np.testing.assert_array_equal(flow.answer().outputs["right"], (image + 1) * 4 + (image + 2) ** 2)
    assert (left.made, left.given) == ({}, frozenset())
    assert taps.remainder({"straight", "deep"}, set()).skipped == ("trunk", "neck")
