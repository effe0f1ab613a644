"""`espalier export`: the options that say what goes in."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch

from contract.repository import read_repository
from tests.espalier.test_cli import espalier
from tests.exporter.graphs import Net
from tests.exporter.wired import FROZEN, WIDTH, Wired, plain

# each command tries its ONNX files out in a process of its own
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight")]


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cars", "birds")):
        Net(blocks=(1, 2), head=seed).save(tmp_path / f"{name}.onnx")
    (tmp_path / "birds.labels.txt").write_text("robin\nwren\nkite\n")
    (tmp_path / "README.md").write_text("not a model")
    return tmp_path


def test_a_folder_of_tasks_beside_a_single_one(networks: Path) -> None:
    (networks / "more").mkdir()
    single = Net(blocks=(1, 2), head=9).save(networks / "more" / "net.onnx")
    run = espalier("export", "--tasks", networks, "--task", f"pets={single}", "--out", networks / "repo")
    assert run.returncode == 0, run.stderr
    tasks = read_repository(networks / "repo").tasks
    assert tasks.keys() == {"birds", "cars", "pets"}
    assert tasks["birds"].labels == ("robin", "wren", "kite")


def test_an_input_is_named_where_two_fit(tmp_path: Path) -> None:
    for name, make in {"kind": lambda: plain(FROZEN, head=1), "pair": pair_of_images}.items():
        onnx.save(ir.to_proto(make()), tmp_path / f"{name}.onnx")
    arguments = ["export", "--tasks", ".", "--out", "repo"]
    asked = espalier(*arguments, cwd=tmp_path)
    assert asked.returncode == 2
    words = " ".join(asked.stderr.split())
    assert (
        "The input 'image' of 'kind' (FLOAT rows of shape [6]) may be 'left' or 'right' of the others; say which input" in words
    )
    assert words.endswith("Give --input kind:image=INPUT.")
    run = espalier(*arguments, "--input", "kind:image=right", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [spec.name for spec in read_repository(tmp_path / "repo").tasks["kind"].inputs] == ["right"]
    shown = espalier("inspect", "repo", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "left" in shown.stdout
    assert "right" in shown.stdout


def pair_of_images() -> ir.Model:
    net = Wired({"left": WIDTH, "right": WIDTH})
    net.layer(net.concat([net.layer("left", "b1", 1), net.layer("right", "other", 7)], "both"), "logits", 3, 3)
    return net.model("logits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "nowhere"], "there is no such folder of task models"),
        (["--tasks", "empty"], "holds no task model (.onnx, .safetensors, .pth, .pt, .bin, .ckpt, .pth.tar)"),
        (["--tasks", ".", "--task", "cars=birds.onnx"], "the name 'cars' is given with --task, too"),
        (["--task", "cars=cars.onnx", "--mean", "0.5,0.5"], "is not of the form R,G,B"),
        (["--task", "cars=cars.onnx", "--mean", "0.5,nan,0.5"], "must be three finite numbers"),
        (["--task", "cars=cars.onnx", "--std", "0.5,0,0.5"], "must be three positive finite numbers"),
        (["--task", "cars=cars.onnx", "--image-size", "0"], "greater than or equal to 1"),
        (["--task", "cars=cars.onnx", "--input", "cars"], "'cars' is not of the form TASK:OLD=NEW"),
        (["--task", "cars=cars.onnx", "--input", "pets:image=x"], "'pets:image=x' begins with none of the tasks that come: cars"),
        (
            ["--task", "cars=cars.onnx", "--input", "cars:image=x", "--input", "cars:image=y"],
            "gives the input 'image' of 'cars' two",
        ),
        (["--task", "cars=cars.onnx", "--input", "cars:pixels=x"], "'cars' has no input 'pixels'; it takes 'image'"),
        (["--task", "cars=cars.onnx", "--kind", "cars"], "'cars' is not of the form TASK=KIND"),
        (["--task", "cars=cars.onnx", "--kind", "pets=mask"], "'pets' is none of the tasks that come: cars"),
        (["--task", "cars=cars.onnx", "--kind", "cars=mask", "--kind", "cars=boxes"], "the name 'cars' is given twice"),
        (
            ["--task", "cars=cars.onnx", "--kind", "cars=labels:thresholds=2"],
            "of 'cars': a threshold is 2; it must be from 0 to 1",
        ),
        (
            ["--task", "cars=cars.onnx", "--kind", "cars=mask"],
            "cannot be of the kind 'mask': it gives [n, 3], and a mask is one output",
        ),
        (["--task", "cars=empty"], "is a folder; give a file"),
        (["--task", "pets=cycle.onnx"], "its graph has a cycle through"),
        (["--task", "two=two_labels.onnx"], "2 labels for outputs of shape [3]"),
        (["--task", "pets=no_such_module:make"], "no_such_module:make: cannot be loaded"),
        (["--task", "pets=weights.pth"], "needs its network"),
        (["--backbone", "cars.onnx", "--task", "pets=weights.pth"], "needs its network"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(networks: Path, arguments: list[str], words: str) -> None:
    (networks / "empty").mkdir()
    Net(blocks=(1,)).save(networks / "two_labels.onnx")
    (networks / "two_labels.labels.txt").write_text("yes\nno\n")
    torch.save({"weight": torch.zeros(1)}, networks / "weights.pth")
    proto = Net(blocks=(1,)).proto()
    proto.graph.node[4].input[0] = "0.out"
    if "cycle.onnx" in arguments[-1]:
        (networks / "cycle.onnx").write_bytes(proto.SerializeToString())
    before = sorted(networks.rglob("*"))
    run = espalier("export", *arguments, cwd=networks)
    assert run.returncode == 2
    assert words in " ".join(run.stderr.replace("│", " ").split())
    assert "Traceback" not in run.stderr
    assert sorted(networks.rglob("*")) == before
