from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from rich.console import Console, RenderableType

from contract.costs import separate_cost, shared_cost
from contract.repository import Repository
from contract.repository.config import ALL_TASKS, all_tasks_config, to_text
from contract.repository.free_sizes import FreeSize
from espalier.figures.repository.flow import OWN, SHARED, TRUNK, compare_costs, make_flow, mean_cost, role
from espalier.tables.tree import cuts_table, repository_tree, savings_table, segments_table
from tests.espalier.families import families, family
from tests.espalier.test_cli import espalier
from tests.serving.nets import make_repository, write_repository
from tests.serving.plain_models import identity, write_model

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

LEFT_OUT = "2 ways part after layer.0 without a cut: each computes 1.0 MMACs before it, which is cheaper."


def shown(renderable: RenderableType, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "repo"
    written = write_repository(folder)
    config = all_tasks_config(written.tasks.values(), (LEFT_OUT,))
    (folder / ALL_TASKS / "config.pbtxt").write_text(to_text(config))
    return folder


@given(families())
@settings(max_examples=40)
def test_mean_costs_are_the_mean_over_all_choices(repository: Repository) -> None:
    flow, names = make_flow(repository), list(repository.tasks)
    for count in range(1, len(names) + 1):
        costs = [shared_cost(repository, choice) for choice in combinations(names, count)]
        mean = mean_cost(repository, flow, count)
        assert mean.macs == pytest.approx(fmean(cost.macs for cost in costs))
        assert mean.weight_bytes == pytest.approx(fmean(cost.weight_bytes for cost in costs))


@given(families())
@settings(max_examples=40)
def test_sharing_saves_the_more_the_more_tasks_are_asked_for(repository: Repository) -> None:
    rows = compare_costs(repository)
    number = len(repository.tasks)
    assert [shared.tasks for shared, _ in rows] == [count for count in (1, 2, 4) if count < number] + [number]
    assert rows[-1][0].macs == pytest.approx(shared_cost(repository, list(repository.tasks)).macs)
    assert rows[-1][1].macs == pytest.approx(separate_cost(repository, list(repository.tasks)).macs)
    assert all(shared.macs <= separate.macs * (1 + 1e-9) for shared, separate in rows)


def test_roles_follow_from_the_users() -> None:
    roles = {run.segment: role(run) for run in make_flow(make_repository()).runs}
    assert roles == {
        "trunk": TRUNK,
        "mid": OWN,
        "tuned-a": OWN,
        "tuned-b": OWN,
        "branch-late": OWN,
        "suffix": SHARED,
        "head-probe": OWN,
        "head-colour": OWN,
        "head-parity": OWN,
    }


def test_the_tree_names_every_input_of_a_segment_and_every_output_of_a_task() -> None:
    repository = family([(0, 0), (0, 1)], [40, 20], siamese=[0], also=[1])
    lines = shown(repository_tree(repository)).splitlines()
    (head,) = [line for line in lines if "head-0" in line]
    assert "also takes b0v0" in head
    assert head.index("head-0") > next(line for line in lines if "b1v0" in line).index("b1v0")
    for output in ("task-1.logits", "task-1.features"):
        assert any(f"{output} FP32 [4]" in line for line in lines)


def test_cuts_are_explained_and_equal_reasons_stand_together() -> None:
    repository = family([(0, 0), (0, 1)], [40, 20])
    segments = {
        name: replace(segment, reason="2 ways part here" if name.startswith("b1") else "")
        for name, segment in repository.segments.items()
    }
    table = cuts_table(replace(repository, segments=segments, cuts_left_out=(LEFT_OUT,)))
    said = shown(table)
    assert table.row_count == 2
    assert said.count("2 ways part here") == 1
    assert "b1v0" in said
    assert "b1v1" in said
    assert "b0v0" not in said
    assert LEFT_OUT in said
    assert cuts_table(repository).row_count == 0


def test_the_table_says_who_uses_a_segment() -> None:
    said = shown(segments_table(family([(0, index) for index in range(8)], [40, 20]))).splitlines()
    assert "all 8" in next(line for line in said if "b0v0" in line)
    assert "task-3" in next(line for line in said if "b1v3" in line)


def test_a_single_task_is_one_row() -> None:
    table = savings_table(family([(0, 0)], [40, 20]))
    assert table.row_count == 1
    assert "1.00x" in shown(table)


def test_inspect_prints_all_and_draws_what_is_asked_for(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / "tree.svg", tmp_path / "tree.png", tmp_path / "weights.svg"]
    run = espalier("inspect", folder, "--plot", files[0], "--plot", files[1])
    assert run.returncode == 0, run.stderr
    said = " ".join(run.stdout.replace("│", " ").split())
    for words in ("One request for N tasks", "no cut", "without a cut", f"Wrote {files[0]}", f"Wrote {files[1]}"):
        assert words in said
    assert files[0].read_bytes().startswith(b"<?xml")
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert espalier("inspect", folder, "--plot", files[2], "--plot-by", "weights").returncode == 0
    assert files[2].read_bytes() != files[0].read_bytes()


def test_models_that_espalier_did_not_export_are_a_line_each(tmp_path: Path) -> None:
    write_model(tmp_path / "simple", identity(("N", 3)))
    write_model(tmp_path / "fixed", identity((1, 3)))
    write_model(tmp_path / "other", b"no model")
    run = espalier("inspect", tmp_path)
    assert (run.returncode, run.stdout.splitlines()[:2]) == (
        0,
        [
            "fixed  fixed/1/model.onnx: x FP32 [1, 3] -> y FP32 [1, 3] (tensor, over v2 alone; shares nothing)",
            "simple  simple/1/model.onnx: x FP32 [-1, 3] -> y FP32 [-1, 3] (classes, over v2 alone; shares nothing)",
        ],
    )
    assert run.stdout.splitlines()[2].startswith("other  is not served: ONNX Runtime does not open its 1/model.onnx (")


def test_json_holds_reasons_cuts_and_costs_and_nothing_else_is_printed(folder: Path, tmp_path: Path) -> None:
    run = espalier("inspect", folder, "--json", "--plot", tmp_path / "tree.svg")
    data = json.loads(run.stdout)
    assert (tmp_path / "tree.svg").exists()
    assert data["cuts_left_out"] == [LEFT_OUT]
    assert data["segments"]["suffix"]["reason"] == ""
    assert [row["shared"]["tasks"] for row in data["mean_costs"]] == [1, 2, 4]
    assert data["mean_costs"][-1]["shared"]["macs"] == pytest.approx(data["shared"]["macs"])


@pytest.mark.parametrize(
    ("name", "words"),
    [("tree.jpg", "must end in .svg or .png"), ("missing/tree.svg", "is not a folder"), ("folder.png", "Is a directory")],
)
def test_a_plot_that_cannot_be_written_is_exit_code_2(folder: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.png").mkdir()
    run = espalier("inspect", folder, "--plot", tmp_path / name)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.split())
    assert run.stdout == ""


def test_without_matplotlib_an_svg_is_drawn_and_a_png_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "espalier.figures.repository.draw"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    run = espalier("inspect", folder, "--plot", tmp_path / "tree.png")
    assert run.returncode == 2
    assert "needs matplotlib" in run.stderr
    assert "espalier[plot]" in run.stderr
    assert espalier("inspect", folder, "--plot", tmp_path / "tree.svg").returncode == 0


def test_free_sizes_are_shown_by_name_and_costs_at_their_reference(folder: Path) -> None:
    repository = make_repository(folder)
    tasks = {
        name: replace(
            task,
            inputs=tuple(
                replace(spec, shape=(-1, *spec.shape[1:]), axes=("length", *[""] * len(spec.shape[1:]))) for spec in task.inputs
            ),
            sizes={"length": FreeSize(16, 1, 512)},
        )
        for name, task in repository.tasks.items()
    }
    text = shown(repository_tree(replace(repository, tasks=tasks)))
    assert "[length" in text
    assert "-1" not in text
    assert "cost of one row, at length 16;" in shown(segments_table(replace(repository, tasks=tasks)))
    assert "cost of one row;" in shown(segments_table(repository))
