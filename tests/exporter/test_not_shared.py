"""Equal weights that are computed with apart: which, how much, and why, said at an export and still known afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.repository import read_repository
from exporter.add import AddOptions, add_tasks
from exporter.export import ExportOptions, export_repository
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from tests.espalier.test_cli import espalier
from tests.exporter.biased import WIDTH, biased
from tests.exporter.convolved import convolved
from tests.exporter.test_recut import recut, sources

pytestmark = [pytest.mark.usefixtures("unsynced")]

MATRIX = WIDTH * WIDTH * 4
NETS = {"one": biased(1, 1), "two": biased(2, 2)}
WHY = "what differs first is Gemm 'node layer0' with other numbers in its weight 'layer0.bias'"


def test_tuned_biases_are_the_reason_and_both_tasks_are_named(tmp_path: Path) -> None:
    (found,) = export_repository(sources(NETS), ExportOptions(tmp_path / "repo")).repository.not_shared
    assert (found.tasks, found.weight_bytes, found.macs) == (("one", "two"), 2 * MATRIX, 2 * WIDTH * WIDTH)
    assert (found.places, found.reason) == (("node layer0", "node layer1"), WHY)
    assert read_repository(tmp_path / "repo").not_shared == (found,)


def test_what_is_shared_or_has_nothing_in_common_is_not_said(tmp_path: Path) -> None:
    tasks = {"one": biased(1, 1), "two": biased(1, 2), "three": biased(3, 3, (5, 6))}
    options = ExportOptions(tmp_path / "repo", cuts=CutOptions("exact"))
    assert not export_repository(sources(tasks), options).repository.not_shared


def test_tasks_that_are_apart_for_other_reasons_are_told_apart(tmp_path: Path) -> None:
    tasks = {**NETS, "three": biased(1, 3)}  # whose biases are those of the first
    found = export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository.not_shared
    reasons = {one.tasks: one.reason for one in found}
    assert reasons.keys() == {("one", "two"), ("one", "three")}
    assert reasons["one", "two"] == WHY
    assert reasons["one", "three"].endswith("the cut behind it was left out")


def test_a_task_that_comes_later_is_compared_with_those_that_are_there(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources({"one": NETS["one"]}), ExportOptions(repo))
    add_tasks(repo, sources({"two": NETS["two"]}), AddOptions())
    (found,) = read_repository(repo).not_shared
    assert (set(found.tasks), found.weight_bytes) == ({"one", "two"}, 2 * MATRIX)
    assert "'node layer0' with other numbers" in found.reason
    add_tasks(repo, sources({"three": biased(3, 3)}), AddOptions())
    (found,) = read_repository(repo).not_shared  # the new entry says what the old one said
    assert set(found.tasks) == {"one", "two", "three"}
    remove_tasks(repo, ["two"])
    (found,) = read_repository(repo).not_shared
    assert set(found.tasks) == {"one", "three"}
    recut(repo)
    (found,) = read_repository(repo).not_shared
    assert set(found.tasks) == {"one", "three"}
    remove_tasks(repo, ["one"])
    assert not read_repository(repo).not_shared


def test_a_cut_that_was_left_out_is_the_reason(tmp_path: Path) -> None:
    fork = {"one": biased(1, 1), "two": biased(1, 2)}
    (found,) = export_repository(sources(fork), ExportOptions(tmp_path / "fork")).repository.not_shared
    assert found.reason == "they compute the same from the same there, and the cut behind it was left out"
    merge = {"one": biased(1, 1, (3, 1, 2)), "two": biased(1, 1, (4, 1, 2))}
    (found,) = export_repository(sources(merge), ExportOptions(tmp_path / "merge")).repository.not_shared
    assert found.reason.startswith("they compute the same from other values there, and the cuts that would")
    assert found.weight_bytes == 2 * MATRIX + WIDTH * 3 * 4


def test_another_size_is_the_reason(tmp_path: Path) -> None:
    layers = ([1, 2, 0, 1, 2, 3], [1, 4, 0, 1, 2, 3], [1, 4, 0, 1, 5, 3])
    tasks = {f"task{index}": convolved(given, 90 + index) for index, given in enumerate(layers)}
    report = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert report.plan.several_shapes
    assert not report.repository.not_shared  # 576 bytes are not worth a word here


def test_the_same_network_at_another_size_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.sharing.not_shared._SMALLEST", 100)
    layers = ([1, 2, 0, 1, 2, 3], [1, 4, 0, 1, 2, 3], [1, 4, 0, 1, 5, 3])
    tasks = {f"task{index}": convolved(given, 90 + index) for index, given in enumerate(layers)}
    report = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert "they take rows of other shapes there ([4, 16, 16] and [4, 8, 8]), and a model is made for one" in {
        one.reason for one in report.repository.not_shared
    }


@pytest.mark.slow
def test_the_commands_say_it(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources(NETS), ExportOptions(repo))
    shown = espalier("inspect", str(repo)).stdout
    assert "Not shared: one and two have 131 kB of weights in common (node layer0 and node layer1)" in shown
    assert WHY in shown
    assert "Stored once: 131 kB of weights" in shown
