"""What is lost between segments: every way is measured, and gives what one graph gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness.inputs import random_rows
from benchmarks.models.merged import write_merged
from benchmarks.studies.between_segments import behind_the_trunk, measure
from contract.plan import make_plan
from serving.engines.onnxruntime.session import PROVIDERS, open_session, run_session, session_options
from tests.serving.heads import FORMS, Head, write_heads

HEADS = [Head(f"h{number}", form=form) for number, form in enumerate(FORMS)]


def test_every_way_is_measured(tmp_path: Path) -> None:
    found = measure(write_heads(tmp_path / "repository", HEADS), [1, 2], 2)
    ways = ["one graph", "the trunk, and one graph behind it", "segments one after another", "the trunk, then side by side"]
    assert [(one.threads, one.way) for one in found] == [(threads, way) for threads in (1, 2) for way in ways]
    assert [one.over_graph for one in found if one.way == "one graph"] == [(1.0, 1.0)] * 2
    assert all(one.elapsed_ms > 0 and one.processor_ms > 0 for one in found)


def test_what_is_behind_the_trunk_answers_as_the_whole(tmp_path: Path) -> None:
    repository = write_heads(tmp_path / "repository", HEADS)
    names = list(repository.tasks)
    plan = make_plan(repository, names)
    rows = random_rows(repository.tasks[names[0]])
    options = session_options(1)
    trunk = open_session(repository.model_file(plan.steps[0].segment), options, PROVIDERS)
    taps = dict(zip(plan.steps[0].outputs[0], run_session(trunk, list(rows.values())), strict=True))
    rest = open_session(write_merged(behind_the_trunk(repository, plan), names, tmp_path / "rest.onnx"), options, PROVIDERS)
    whole = open_session(write_merged(repository, names, tmp_path / "whole.onnx"), options, PROVIDERS)
    found = rest.run(None, {value.name: taps[value.name] for value in rest.get_inputs()})
    for one, other in zip(found, whole.run(None, rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
