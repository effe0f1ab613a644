r"""Files that an earlier version wrote are read, and the same commands write them again: formats are a promise.

tests/golden/written was made by these commands, in the version before folders became the architecture; they make it again:

    export OMP_NUM_THREADS=1
    espalier tune pretrain --network resnet18 --channels 4,4,8,8 --data digits:parity --epochs 1 --out backbone.safetensors
    espalier tune fit --backbone backbone.safetensors --data digits:noisy --train-images 64 --blocks layer4.1 \
        --epochs 1 --out task.safetensors
    espalier tune greedy --backbone backbone.safetensors --data digits:noisy --folds 2 --max-blocks 1 \
        --epochs 1 --cost-weight 0.02 --ledger ledger.jsonl

and, on the networks of `NETS`, those of `write_repository`. Version folders are empty, so that git does not keep them.

Of repositories there is one of each version of the digests: `repository` is of the first, `repository_v2` and `repository_v3` of the
next ones, made by the same commands. `recurrent` is of the
first, too, and has the networks whose digests the second changed: `recurrent(head=3)` and `(head=4)` of tests/exporter/recurrent.py,
exported as `early` and `late` with the rule "exact", in the version before recurrent layers were counted. `quantised` is of the second,
and has networks that the third cuts elsewhere: `quantised((1, 20, 3), head=4)` and `quantised((1, 2, 30), head=5)` of
tests/exporter/quantised.py, by the same names and rule.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import onnx
import pytest
import torch

from contract.repository import Repository, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.deploy import deploy, rollback
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.quantised import quantised
from tests.exporter.recurrent import recurrent
from tests.exporter.test_add import add, check_answers, contents
from tests.exporter.test_recut import check_answers as check_networks
from tuning.network.backbone import load_backbone, save_backbone
from tuning.network.checkpoint import build_network, load_task, save_task
from tuning.search.ledger import open_ledger, read_ledger

WRITTEN = Path(__file__).parent / "golden" / "written"
VERSIONS = ("repository", "repository_v2", "repository_v3")  # of the digests
NETS = {"late": Net((1, 2, 30), 1), "probe": Net((1, 2, 3), 2), "tuned": Net((1, 20, 3), 3), "better": Net((1, 21, 3), 4)}
# The answers to the recorded sample are computed, so that another processor may round them otherwise.
TRUNK = {
    **dict.fromkeys(("repository", "repository_v2"), ("trunk-00-01-31956285", "trunk-02-02-7141c0b6", "shared-03-03-da853bbe")),
    "repository_v3": ("trunk-00-01-6fbf7603", "trunk-02-02-7a906870", "shared-03-03-c083f951"),
}
OTHERS = {
    **dict.fromkeys(
        ("repository", "repository_v2"),
        ("late-03-04-ed0444e2", "probe-04-04-22e128db", "tuned-02-02-efb0245e", "tuned-04-04-37bc9fd4"),
    ),
    "repository_v3": ("late-03-04-7ab1ee5c", "probe-04-04-57be518f", "tuned-02-02-1e35fc33", "tuned-04-04-0a5a4e0a"),
}
DIGESTS = {
    **dict.fromkeys(("repository", "repository_v2"), "da853bbe427c9d1df54a14c2bc3086b67d56b7c6cd10b983e6a9f2f6f629f6e5"),
    "repository_v3": "c083f9511f03841938c67e1ccd8c3a726fadaa8fb4e135d8534df64d86035c80",
}
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


@pytest.mark.parametrize("version", VERSIONS)
def test_a_repository_of_before_is_read(tmp_path: Path, version: str) -> None:
    repository = read_repository(copied(version, tmp_path / "old"))
    stem, second, third = TRUNK[version]
    late, probe, tuned_second, tuned_head = OTHERS[version]
    assert {name: _segments(repository, name) for name in repository.tasks} == {
        "late": [stem, second, late],
        "probe": [stem, second, third, probe],
        "tuned": [stem, tuned_second, third, tuned_head],
    }
    tuned, shared = repository.tasks["tuned"], repository.segments[third]
    assert (tuned.version, tuned.scores, tuned.provenance) == ("1", "logits", {"file": "tuned.onnx"})
    assert tuned.canary is not None
    assert (tuned.canary.share, tuned.canary.task.version) == (0.25, "2")
    assert tuned.parity is not None
    assert tuned.parity.outputs[0].values == (-0.758352, -1.318843, -0.201809)
    assert shared.digest == DIGESTS[version]
    weight_bytes = 656 if version == VERSIONS[-1] else 640  # a Flatten has become a Reshape, to two numbers
    assert (shared.blocks, shared.macs, shared.weight_bytes, shared.rows) == ((3, 3), 5760, weight_bytes, "independent")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VERSIONS, "recurrent", "quantised"])
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
    written, before = _files(write_repository(tmp_path)), _files(WRITTEN / VERSIONS[-1])
    assert written.keys() == before.keys()
    for name, content in written.items():
        if content != before[name]:
            assert _without_answers(content) == _without_answers(before[name]), name
            assert np.allclose(_answers(content), _answers(before[name]), atol=1e-3), name


def test_the_second_version_of_the_digests_changed_none_of_these() -> None:
    first, second = (_models(WRITTEN / name, (*TRUNK[name], *OTHERS[name])) for name in VERSIONS[:2])
    assert first == second


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("name", VERSIONS)
def test_a_repository_of_before_is_added_to_and_stays_to_the_byte(tmp_path: Path, name: str) -> None:
    repo = copied(name, tmp_path / "old")
    before = contents(repo)
    report = add(repo, {"new": Net((1, 2, 3), 9)}, None)
    assert all(contents(repo)[file] == content for file, content in before.items() if not file.startswith("all_tasks/"))
    assert tuple(step.segment for step in report.repository.tasks["new"].steps[:3]) == TRUNK[name]
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


QUANTISED = {"early": quantised((1, 20, 3), head=4), "late": quantised((1, 2, 30), head=5)}


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_a_repository_that_is_cut_elsewhere_now_shares_with_what_comes(tmp_path: Path) -> None:
    """Its segments pass on float numbers: a task that is added is cut there, too, and --recut moves the borders."""
    repo = copied("quantised", tmp_path / "old")
    before = contents(repo)
    networks = {**QUANTISED, "new": quantised((1, 2, 3), head=6)}
    report = add_tasks(repo, Sources({"new": lambda: TaskModel(networks["new"].clone())}), AddOptions())
    assert all(contents(repo)[file] == content for file, content in before.items() if not file.startswith("all_tasks/"))
    assert report.missed["new"].macs == 0
    steps = {name: [step.segment for step in task.steps] for name, task in report.repository.tasks.items()}
    assert (steps["new"][0], steps["late"][0]) == ("trunk-00-02-69e5393d",) * 2
    check_networks(read_repository(repo), networks)
    assert deploy(repo, Sources({"late": lambda: TaskModel(networks["late"].clone())})).changes["late"].after.version == "1"
    cut = add_tasks(repo, Sources({}), AddOptions(recut=True)).repository
    check_networks(cut, networks)
    passed = {
        spec.dtype for task in networks for step in cut.tasks[task].steps[1:-1] for spec in cut.segments[step.segment].inputs
    }
    assert passed == {"UINT8"}


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


def _models(folder: Path, segments: Sequence[str]) -> list[bytes]:
    """The models of `segments`, without their names."""
    models = [onnx.load(folder / name / "1" / "model.onnx") for name in segments]
    for model in models:
        model.graph.name = "segment"
    return [model.SerializeToString(deterministic=True) for model in models]


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
