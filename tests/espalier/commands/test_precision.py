"""`--precision`, `--calibration` and `--max-drop`: the commands of docs/guides/quantise.md, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from contract.repository import Repository, read_repository
from espalier import api
from espalier.local import LocalRepository
from exporter.precision.errors import BadExamples, NeedlessExamples, NeedsPrecision
from tests.documents import commands
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.precision.nets import images

# each command tries its ONNX files out in a process of its own
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight")]


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for seed, name in enumerate(("parity", "angle", "more", "exact", "other")):
        Net(blocks=(1, 2, 3, 10 + seed), head=seed).save(tmp_path / f"{name}.onnx")
    np.save(tmp_path / "images.npy", images(120))
    return tmp_path


def run(networks: Path, *arguments: str) -> str:
    done = espalier(*arguments, cwd=networks)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_the_commands_of_the_document(networks: Path) -> None:
    pytest.importorskip("nncf", reason="networks are quantised by the extra `quantize`")
    export, inspect, add, exact, deploy = (words[1:] for words in commands("docs/guides/quantise.md", __file__))
    said = run(networks, *export, "--cuts", "exact")
    assert "Calibration: images.npy: calibrated with 60 rows, judged on 60 others." in said
    assert "Tasks in int8 (at most 2 % may be lost)" in said
    assert "agreement with" in said
    assert "Before they were quantised, composed segments equal the whole networks" in said
    assert " int8 " in run(networks, *inspect)
    refused = espalier("add", "repo", "--task", "more=more.onnx", cwd=networks)
    assert refused.returncode == 2
    words = " ".join(refused.stderr.split())
    assert "'more' would share trunk-" in words
    assert words.endswith("Give --precision int8 --calibration DATA, or --precision fp32.")
    run(networks, *add)
    assert "Two precisions:" in run(networks, *exact)
    run(networks, *deploy)
    repository = read_repository(networks / "repo")
    precisions = {
        name: [repository.segments[step.segment].precision for step in task.steps] for name, task in repository.tasks.items()
    }
    assert precisions == {"parity": ["int8"] * 2, "angle": ["int8"] * 2, "more": ["int8"] * 2, "exact": ["fp32"] * 2}
    with LocalRepository(networks / "repo") as local:
        answers = local.infer("all_tasks", {"image": images(3)})
    assert answers.keys() == precisions.keys()


def test_functions_take_what_commands_take(networks: Path) -> None:
    pytest.importorskip("nncf", reason="networks are quantised by the extra `quantize`")
    data, repo = networks / "images.npy", networks / "repo"
    with pytest.raises(NeedlessExamples):
        api.export({"parity": networks / "parity.onnx"}, repo, calibration=data)
    with pytest.raises(BadExamples, match="is for the task 'x', which does not come"):
        api.export({"parity": networks / "parity.onnx"}, repo, precision="int8", calibration={"x": data})
    assert not repo.exists()
    api.export({"parity": networks / "parity.onnx"}, repo, precision="int8", calibration=data, max_drop=0.3)
    with pytest.raises(NeedsPrecision):
        api.add(repo, {"more": networks / "parity.onnx"})
    added = api.add(repo, {"more": networks / "parity.onnx"}, precision="fp32")
    assert _precisions(added.repository, "more") == {"fp32"}
    changed = {"more": networks / "other.onnx"}
    deployed = api.deploy(repo, changed, precision="int8", calibration={"more": data}, max_drop=0.3)
    assert _precisions(deployed.repository, "more") == {"int8"}


def _precisions(repository: Repository, task: str) -> set[str]:
    return {repository.segments[step.segment].precision for step in repository.tasks[task].steps}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int8"], "int8 needs data to calibrate and to judge the tasks with; .* Give it with --calibration."),
        (
            ["--calibration", "images.npy"],
            "is of use only where networks are to be in int8; .* --precision int8 and --calibration.",
        ),
        (["--precision", "fp32", "--calibration", "images.npy"], "is of use only where networks are to be in int8"),
        (["--precision", "bf16"], "must be int8 or fp32, not 'bf16'."),
        (["--max-drop", "1%"], "is of use only with --precision int8."),
        (["--precision", "int8", "--calibration", "images.npy", "--max-drop", "lots"], "'lots' is no share of the answers"),
        (["--precision", "int8", "--calibration", "images.npy", "--max-drop", "-1%"], "'-1%' is no share of the answers"),
        (["--precision", "int8", "--calibration", "images.npy", "--max-drop", "100%"], "'100%' is no share of the answers"),
        (["--precision", "int8", "--calibration", "x=images.npy"], "is for the task 'x', which does not come; these do: parity"),
        (["--precision", "int8", "--calibration", "images.npy", "--calibration", "images.npy"], "gives data for all tasks twice"),
        (["--precision", "int8", "--calibration", "nothing.npy"], "nothing.npy: there is no such file."),
    ],
)
def test_what_does_not_go_together_is_refused(networks: Path, arguments: list[str], words: str) -> None:
    done = espalier("export", "--task", "parity=parity.onnx", "--out", "repo", *arguments, cwd=networks)
    assert done.returncode == 2
    assert re.search(words, " ".join(done.stderr.replace("│", " ").split()))
    assert not (networks / "repo").exists()
