"""Weights that are nearly equal: how near is said, and on request they are taken for each other, with what that does to the answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from contract.repository import read_repository
from exporter.add import AddOptions, add_tasks
from exporter.errors import BadSnap
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from tests.espalier.test_cli import espalier
from tests.exporter.biased import WIDTH, biased
from tests.exporter.convolved import convolved
from tests.exporter.test_recut import check_answers, recut, sources

pytestmark = [pytest.mark.usefixtures("unsynced")]

MATRIX = WIDTH * WIDTH * 4
NEAR = 4e-4
# One network, and another whose matrices differ by 4e-4, relatively, and whose biases are the same; the heads are their own.
TASKS = {"one": biased(1, 1), "two": biased(1, 2, noise=NEAR)}
EXACT = CutOptions("exact")


def test_how_near_they_are_is_said_by_block(tmp_path: Path) -> None:
    repository = export_repository(sources(TASKS), ExportOptions(tmp_path / "repo", cuts=EXACT)).repository
    (found,) = repository.not_shared
    assert (found.tasks, found.weight_bytes) == (("one", "two"), 2 * (MATRIX + 4 * WIDTH))
    assert list(found.differences) == ["layer0", "layer1"]
    assert all(0.5 * NEAR < most <= NEAR for most in found.differences.values())
    assert "nearly equal" in str(found)
    assert read_repository(tmp_path / "repo").not_shared == (found,)
    check_answers(repository, TASKS)  # nothing is taken without being asked for


def test_what_was_trained_is_not_near(tmp_path: Path) -> None:
    tasks = {"one": biased(1, 1), "two": biased(1, 2, noise=0.05), "three": biased(3, 3, (5, 6))}
    assert not export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=EXACT)).repository.not_shared


@pytest.mark.parametrize("with_backbone", [False, True])
def test_snapped_blocks_are_shared_and_the_change_of_the_answers_is_said(tmp_path: Path, with_backbone: bool) -> None:
    backbone = biased(1, 9) if with_backbone else None
    tasks = {"two": TASKS["two"], **TASKS} if with_backbone else TASKS
    report = export_repository(sources(tasks, backbone), ExportOptions(tmp_path / "repo", cuts=EXACT, snap=1e-3))
    whose = "the backbone" if with_backbone else "one"
    assert f"takes the weights of {whose} for 2 blocks, which differ by" in report.remarks["two"]
    assert "of their spread at most, on 16 rows of the sample" in report.remarks["two"]
    assert "largest in 16 of 16" in report.remarks["two"]
    trunk = report.repository.tasks["one"].steps[0].segment
    assert report.repository.tasks["two"].steps[0].segment == trunk
    assert not report.repository.not_shared
    check_answers(report.repository, {"one": biased(1, 1), "two": biased(1, 2)})


def test_the_change_that_is_said_is_the_change(tmp_path: Path) -> None:
    report = export_repository(sources(TASKS), ExportOptions(tmp_path / "repo", cuts=EXACT, snap=1e-3))
    said = float(report.remarks["two"].split("answers change by ")[1].split()[0])
    assert 1e-5 < said < 1e-2
    larger = {"one": TASKS["one"], "two": biased(1, 2, noise=8e-4)}
    report = export_repository(sources(larger), ExportOptions(tmp_path / "larger", cuts=EXACT, snap=1e-3))
    assert 1.5 * said < float(report.remarks["two"].split("answers change by ")[1].split()[0]) < 2.5 * said


def test_blocks_beyond_what_is_asked_for_keep_their_weights(tmp_path: Path) -> None:
    report = export_repository(sources(TASKS), ExportOptions(tmp_path / "repo", cuts=EXACT, snap=1e-4))
    assert "takes no weights of one: none of its blocks that no other network has differs by 0.0001" in report.remarks["two"]
    assert report.repository.not_shared
    check_answers(report.repository, TASKS)


@pytest.mark.parametrize("snap", [0.0, -1e-3, 0.5, float("nan")])
def test_a_difference_that_makes_no_sense_is_refused(tmp_path: Path, snap: float) -> None:
    with pytest.raises(BadSnap, match=r"give more than 0 and at most 0\.1"):
        export_repository(sources(TASKS), ExportOptions(tmp_path / "repo", snap=snap))
    assert not (tmp_path / "repo").exists()


def test_an_addition_takes_what_is_there(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources({"one": TASKS["one"]}, biased(1, 9)), ExportOptions(repo, cuts=EXACT))
    add_tasks(repo, sources({"similar": TASKS["two"]}), AddOptions())
    (found,) = read_repository(repo).not_shared
    assert found.tasks == ("one", "similar")
    assert found.differences
    other = biased(1, 3, noise=-NEAR)
    report = add_tasks(repo, sources({"two": TASKS["two"], "three": other}), AddOptions(snap=1e-3))
    assert "takes the weights of one for 2 blocks" in report.remarks["three"]
    assert "takes no weights of one" in report.remarks["two"]  # it is what another task is, to the bit
    check_answers(
        read_repository(repo), {"one": TASKS["one"], "similar": TASKS["two"], "two": TASKS["two"], "three": biased(1, 3)}
    )


def test_cutting_anew_snaps_no_task_that_is_there(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources(TASKS), ExportOptions(repo, cuts=EXACT))
    add_tasks(repo, sources({}), AddOptions(recut=True, snap=1e-3))
    check_answers(read_repository(repo), TASKS)
    recut(repo)
    assert [one.tasks for one in read_repository(repo).not_shared] == [("one", "two")]


def test_weights_rounded_to_half_precision_are_within_half_a_thousandth(tmp_path: Path) -> None:
    rounded = TASKS["one"].clone()
    for value in rounded.graph.initializers.values():
        assert value.const_value is not None
        half = value.const_value.numpy().astype(np.float16).astype(np.float32)
        value.const_value = ir.Tensor(half, name=value.name)
    report = export_repository(sources({"one": TASKS["one"], "half": rounded}), ExportOptions(tmp_path / "repo", cuts=EXACT))
    (found,) = report.repository.not_shared
    assert max(found.differences.values()) <= 2.0**-11


def test_convolutions_behind_another_batch_norm_are_told_from_others(tmp_path: Path) -> None:
    """Folded in, it scales each channel: no weight is equal, nor near."""
    one, tuned, other = (convolved([seed, seed, 0, seed], 90).clone() for seed in (1, 1, 2))
    for value in tuned.graph.initializers.values():
        kernel = value.const_value
        if kernel is not None and len(kernel.shape) == 4:
            factors = np.random.default_rng(5).uniform(0.5, 2, (kernel.numpy().shape[0], 1, 1, 1)).astype(np.float32)
            value.const_value = ir.Tensor(kernel.numpy() * factors, name=value.name)
    tasks = {"one": one, "tuned": tuned, "trained": other}
    (found,) = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=EXACT)).repository.not_shared
    assert found.tasks == ("one", "tuned")
    assert "equal but for a factor for each channel" in str(found)
    assert not found.differences


@pytest.mark.slow
def test_the_commands_say_it_and_offer_it(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources(TASKS), ExportOptions(repo, cuts=EXACT))
    shown = espalier("inspect", str(repo)).stdout
    assert "The largest relative differences: layer0 " in shown
    assert "With --snap 4e-4 these would be those of one" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("forked_preflight")
def test_a_deploy_says_it_too_and_takes_the_weights_on_request(tmp_path: Path) -> None:
    repo, file = tmp_path / "repo", tmp_path / "two.onnx"
    ir.save(TASKS["two"].clone(), file)
    export_repository(sources({"one": TASKS["one"]}), ExportOptions(repo, cuts=EXACT))
    shutil.copytree(repo, tmp_path / "other")
    said = " ".join(espalier("deploy", file, "--to", repo).stdout.split())
    assert "Not shared: " in said
    assert "With --snap 4e-4 these would be those of one" in said
    run = espalier("deploy", file, "--to", tmp_path / "other", "--snap", "1e-3")
    assert "its answers change by" in " ".join(run.stdout.split())
    assert "--snap" not in run.stdout
