r"""Files that an earlier version wrote are read, and the same commands write them again: formats are a promise.

tests/golden/written was made by these commands, in the version before folders became the architecture; they make it again:

    export OMP_NUM_THREADS=1
    espalier tune pretrain --network resnet18 --channels 4,4,8,8 --data digits:parity --epochs 1 --out backbone.safetensors
    espalier tune fit --backbone backbone.safetensors --data digits:noisy --train-images 64 --blocks layer4.1 \
        --epochs 1 --out task.safetensors
    espalier tune greedy --backbone backbone.safetensors --data digits:noisy --folds 2 --max-blocks 1 \
        --epochs 1 --cost-weight 0.02 --ledger ledger.jsonl

and, on the networks of `NETS`, those of `write_repository`. Version folders are empty, so that git does not keep them.

Of repositories there is one of each version of the digests: `repository` is of the first, `repository_v2` of the second, made by the same
commands. `recurrent` is of the first, too, and has the networks whose digests the second changed: `recurrent(head=3)` and `(head=4)` of
tests/exporter/recurrent.py, exported as `early` and `late` with the rule "exact", in the version before recurrent layers were counted.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch

from contract.repository import Repository, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.deploy import deploy, rollback
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.recurrent import recurrent
from tests.exporter.test_add import add, check_answers, contents
from tests.exporter.test_recut import check_answers as check_networks
from tuning.network.backbone import load_backbone, save_backbone
from tuning.network.checkpoint import build_network, load_task, save_task
from tuning.search.ledger import open_ledger, read_ledger

WRITTEN = Path(__file__).parent / "golden" / "written"
NETS = {"late": Net((1, 2, 30), 1), "probe": Net((1, 2, 3), 2), "tuned": Net((1, 20, 3), 3), "better": Net((1, 21, 3), 4)}
# The answers to the recorded sample are computed, so that another processor may round them otherwise.

ANSWERS = re.compile(r"parity_sample.*?string_value: \"(.*?)\"\n", re.DOTALL)


def write_repository(folder: Path) -> Path:
    for name, net in NETS.items():
        net.save(folder / f"{name}.onnx")
    tasks = [part for name in ("late", "probe", "tuned") for part in ("--task", f"{name}={name}.onnx")]
    for command in (
        ["export", "--cuts", "exact", *tasks, "--out", "repository"],
        ["deploy", "tuned=better.onnx", "--to", "repository", "--canary", "25%"],
    ):
        done = espalier(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "repository"


def copied(name: str, to: Path) -> Path:
    """Copy a repository, with the version folders of its ensembles."""
    shutil.copytree(WRITTEN / name, to)
    for folder in to.iterdir():
        (folder / "1").mkdir(exist_ok=True)
    return to


# What the two versions call the segments that tasks share.
SHARED = {
    "repository": ("trunk-00-01-31956285", "trunk-02-02-7141c0b6", "shared-03-03-da853bbe"),
    "repository_v2": ("trunk-00-01-f8c2ff81", "trunk-02-02-23e20e82", "shared-03-03-17c7e408"),
}
LATE = {"repository": "late-03-04-ed0444e2", "repository_v2": "late-03-04-a0e600e2"}


@pytest.mark.parametrize("name", SHARED)
def test_a_repository_of_before_is_read(tmp_path: Path, name: str) -> None:
    repository = read_repository(copied(name, tmp_path / "old"))
    stem, middle, suffix = SHARED[name]
    assert {task: _segments(repository, task) for task in repository.tasks} == {
        "late": [stem, middle, LATE[name]],
        "probe": [stem, middle, suffix, "probe-04-04-22e128db"],
        "tuned": [stem, "tuned-02-02-efb0245e", suffix, "tuned-04-04-37bc9fd4"],
    }
    tuned, shared = repository.tasks["tuned"], repository.segments[suffix]
    assert (tuned.version, tuned.scores, tuned.provenance) == ("1", "logits", {"file": "tuned.onnx"})
    assert tuned.canary is not None
    assert (tuned.canary.share, tuned.canary.task.version) == (0.25, "2")
    assert tuned.parity is not None
    assert tuned.parity.outputs[0].values == (-0.758352, -1.318843, -0.201809)
    assert shared.digest.startswith(suffix.rpartition("-")[2])
    weight_bytes = 640 if name == "repository" else 656  # a Flatten has become a Reshape, to two numbers
    assert (shared.blocks, shared.macs, shared.weight_bytes, shared.rows) == ((3, 3), 5760, weight_bytes, "independent")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repository", "repository_v2", "recurrent"])
def test_a_repository_of_before_is_served(tmp_path: Path, name: str) -> None:
    """The server compares its answers with those that are recorded, before it is ready."""
    repo = copied(name, tmp_path / "old")
    with BackgroundServer(repo, http_port=0, grpc_port=0, check_samples=True) as server:
        for task in (*read_repository(repo).tasks, "all_tasks"):
            with urlopen(f"http://{server.http_address}/v2/models/{task}/ready") as answer:
                assert answer.status == 200


@pytest.mark.slow
@pytest.mark.usefixtures("forked_preflight", "unsynced")
def test_a_repository_is_written_as_before_to_the_byte(tmp_path: Path) -> None:
    written, before = _files(write_repository(tmp_path)), _files(WRITTEN / "repository_v2")
    assert written.keys() == before.keys()
    for name, content in written.items():
        if content != before[name]:
            assert _without_answers(content) == _without_answers(before[name]), name
            assert np.allclose(_answers(content), _answers(before[name]), atol=1e-3), name


def test_the_digests_of_networks_in_which_no_operand_changes_places_are_those_of_the_first_version() -> None:
    segments = [{path.name for path in (WRITTEN / name).iterdir()} for name in SHARED]
    assert {name for name in segments[0] & segments[1] if name.count("-") > 2} >= {"probe-04-04-22e128db", "tuned-04-04-37bc9fd4"}


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("name", ["repository", "repository_v2"])
def test_a_repository_of_before_is_added_to_and_stays_to_the_byte(tmp_path: Path, name: str) -> None:
    repo = copied(name, tmp_path / "old")
    before = contents(repo)
    report = add(repo, {"new": Net((1, 2, 3), 9)}, None)
    assert all(contents(repo)[file] == content for file, content in before.items() if not file.startswith("all_tasks/"))
    assert tuple(step.segment for step in report.repository.tasks["new"].steps[:3]) == SHARED[name]
    check_answers(report.repository, {**{name: NETS[name] for name in ("late", "probe", "tuned")}, "new": Net((1, 2, 3), 9)})


RECURRENT = {"early": recurrent(head=3), "late": recurrent(head=4)}


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_a_repository_whose_digests_are_others_now_is_added_to_deployed_to_and_cut_anew(tmp_path: Path) -> None:
    repo = copied("recurrent", tmp_path / "old")
    before = contents(repo)
    new = Sources({"new": lambda: TaskModel(recurrent(head=5))})
    report = add_tasks(repo, new, AddOptions())
    assert all(contents(repo)[file] == content for file, content in before.items() if not file.startswith("all_tasks/"))
    assert report.missed["new"].blocks == 2  # which the old segments compute, and have no cut behind
    networks = {**RECURRENT, "new": recurrent(head=5)}
    check_networks(read_repository(repo), networks)
    assert deploy(repo, new).changes["new"].after.version == "1"  # it is current already
    deploy(repo, Sources({"late": lambda: TaskModel(recurrent(head=6))}))
    rollback(repo, "late")
    check_networks(read_repository(repo), networks)
    cut = add_tasks(repo, Sources({}), AddOptions(recut=True)).repository
    assert len({cut.tasks[name].steps[0] for name in networks}) == 1  # both recurrent layers, once for all
    check_networks(cut, networks)


def test_a_backbone_and_a_task_of_before_are_read() -> None:
    backbone, task = load_backbone(WRITTEN / "backbone.safetensors"), load_task(WRITTEN / "task.safetensors")
    assert backbone.spec.weights_sha256 == "2c823a44cdc3b2f8456a41adfd5d99c978d13867a326b1a6be5ae57694634c5b"
    assert (task.subset, task.labels, task.seed) == (("layer4.1",), tuple("0123456789"), 0)
    assert (task.scores["test_accuracy"], task.provenance["data"]) == (0.118, "digits:noisy, 64 images")
    assert sorted(task.tensors)[:3] == ["fc.bias", "fc.weight", "layer4.1.bn1.bias"]
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    answers = build_network(backbone, task)(image)[0]
    assert answers[:4].tolist() == pytest.approx([-0.3462, 0.2346, 0.3106, -0.3211], abs=1e-3)


def test_a_backbone_and_a_task_are_written_as_before(tmp_path: Path) -> None:
    save_backbone(load_backbone(WRITTEN / "backbone.safetensors"), tmp_path / "backbone.safetensors")
    save_task(load_task(WRITTEN / "task.safetensors"), tmp_path / "task.safetensors")
    for name in ("backbone.safetensors", "task.safetensors"):
        # Field by field: safetensors does not promise the order of what is in a header.
        assert _safetensors(tmp_path / name) == _safetensors(WRITTEN / name)


def test_a_ledger_of_before_is_read() -> None:
    contents = read_ledger(WRITTEN / "ledger.jsonl")
    assert (contents.header.backbone, contents.header.folds) == ('timm/resnet18 {"channels": [4, 4, 8, 8]}', 2)
    assert (len(contents.header.blocks), len(contents.costs), len(contents.trials), len(contents.notes)) == (8, 9, 18, 1)
    assert contents.scores()[()].folds == (0.095, 0.135)
    assert contents.costs[("layer2.0",)].weight_bytes == 20824
    assert contents.notes[0]["selection"]["why"] == "the best addition, layer4.1, gains +0.0025"


def test_a_ledger_is_written_as_before_to_the_byte(tmp_path: Path) -> None:
    contents = read_ledger(WRITTEN / "ledger.jsonl")
    with open_ledger(tmp_path / "ledger.jsonl", contents.header) as ledger:
        for trial in contents.trials:
            ledger.add(trial)
        for subset, cost in contents.costs.items():
            ledger.add_cost(subset, cost)
        for note in contents.notes:
            ledger.note(note)
    # Trials and costs take turns in a search; what a line says does not depend on where it stands.
    assert sorted(_lines(tmp_path / "ledger.jsonl")) == sorted(_lines(WRITTEN / "ledger.jsonl"))
    assert vars(read_ledger(tmp_path / "ledger.jsonl")) == vars(contents)


def _segments(repository: Repository, task: str) -> list[str]:
    return [step.segment for step in repository.tasks[task].steps]


def _files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _without_answers(config: bytes) -> str:
    return ANSWERS.sub("", config.decode())


def _answers(config: bytes) -> list[float]:
    found = ANSWERS.search(config.decode())
    assert found is not None
    record = json.loads(found[1].replace('\\"', '"'))
    return [value for output in record["outputs"] for value in (*output["values"], output["scale"])]


def _safetensors(file: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors of a file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()
