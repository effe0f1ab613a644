"""torch networks by reference: what is refused before anything is traced."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from exporter.errors import BadCode, BadModel, ExportError, LabelsDoNotFit, NeedsBackbone, NonFiniteWeights, UnknownInput
from exporter.open_models import open_sources
from exporter.sources.references import InputOptions, parse_reference
from exporter.torch.networks import Architecture, open_architecture
from tests.nets import tiny_resnet
from tests.packages import install_made_up, random_network
from tuning.errors import BadCheckpoint, TuningError, UnknownBackbone
from tuning.network.backbone import save_backbone
from tuning.network.blocks import replace_head

pytestmark = pytest.mark.slow  # imports torch and builds networks

BACKBONE = tiny_resnet()


def state_dict(classes: int = 5) -> dict[str, Tensor]:
    network = copy.deepcopy(BACKBONE.network)
    replace_head(network, classes, seed=1)
    return network.state_dict()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_backbone(BACKBONE, path)
    return path


@pytest.mark.parametrize("classes", [5, 3])
def test_a_whole_state_dict_fits_whatever_its_number_of_classes(tmp_path: Path, classes: int) -> None:
    given = state_dict(classes)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in given.items()}}, tmp_path / "net.pth")
    architecture = Architecture.of_backbone(BACKBONE)
    assert architecture.check(tmp_path / "net.pth").outputs == classes
    loaded = architecture.with_weights(tmp_path / "net.pth").state_dict()
    assert loaded.keys() == given.keys()
    assert all(torch.equal(tensor, given[name]) for name, tensor in loaded.items())
    assert BACKBONE.network.state_dict()["fc.weight"].shape[0] == 5


def test_a_lightning_checkpoint_of_the_backbones_network(tmp_path: Path, backbone: Path) -> None:
    given = {f"model.{name}": tensor for name, tensor in state_dict(3).items() if "num_batches" not in name}
    torch.save({"state_dict": given, "callbacks": {"EarlyStopping": {"wait_count": 0}}}, tmp_path / "last.ckpt")
    sources = open_sources(backbone, {"pets": tmp_path / "last.ckpt"})
    assert sources.remarks == ("last.ckpt: 'model.' is taken off the names of its tensors.",)
    loaded = Architecture.of_backbone(BACKBONE).with_weights(tmp_path / "last.ckpt").state_dict()
    assert torch.equal(loaded["layer1.0.conv1.weight"], given["model.layer1.0.conv1.weight"])


def _missing(tensors: dict[str, Tensor]) -> None:
    del tensors["layer1.0.conv1.weight"]


def _extra(tensors: dict[str, Tensor]) -> None:
    tensors["ema.decay"] = torch.ones(1)


def _misshapen(tensors: dict[str, Tensor]) -> None:
    tensors["conv1.weight"] = tensors["conv1.weight"][:1].clone()


def _nan(tensors: dict[str, Tensor]) -> None:
    tensors["layer4.1.bn2.running_var"][3] = torch.nan


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (_missing, BadModel, r"is no whole state dict of timm/resnet18: .* 1 missing \(layer1\.0\.conv1\.weight\)"),
        (_extra, BadModel, r"1 not in the network \(ema\.decay\)"),
        (_misshapen, BadModel, r"1 of another shape \(conv1\.weight\)"),
        (_nan, NonFiniteWeights, r"the tensor 'layer4\.1\.bn2\.running_var' holds NaN or infinite values"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_that_does_not_fit(tmp_path: Path, backbone: Path, damage, error, words: str, suffix: str) -> None:  # type: ignore[no-untyped-def]
    tensors = {name: tensor.clone() for name, tensor in state_dict().items()}
    damage(tensors)
    path = tmp_path / f"net{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    with pytest.raises(error, match=words):
        open_sources(backbone, {"pets": path})


class _Exploit:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, ("exploited",)


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Exploit()}, "net.pth")
    with pytest.raises(BadCheckpoint, match="pickled code, which is refused"):
        open_sources(backbone, {"pets": "net.pth"})
    assert not Path("exploited").exists()


def test_weights_alone_need_their_network(tmp_path: Path, backbone: Path) -> None:
    torch.save(state_dict(), tmp_path / "net.pth")
    with pytest.raises(NeedsBackbone, match=r"net\.pth, and needs its network: .*backbone.*NETWORK@"):
        open_sources(None, {"pets": tmp_path / "net.pth"})
    with pytest.raises(BadModel, match=r"is a backbone, not a task; give it as the backbone"):
        open_sources(None, {"pets": backbone})
    with pytest.raises(BadModel, match=r"net\.pth: is no backbone file; .*NETWORK@FILE"):
        open_sources(tmp_path / "net.pth", {"pets": tmp_path / "net.pth"})


def test_labels_must_be_as_many_as_outputs(tmp_path: Path, backbone: Path) -> None:
    torch.save(state_dict(3), tmp_path / "net.pth")
    (tmp_path / "pets.labels.txt").write_text("cat\ndog\n")
    with pytest.raises(LabelsDoNotFit, match="'pets' has 2 labels for 3 outputs"):
        open_sources(backbone, {"pets": tmp_path / "net.pth"})


def test_an_unknown_network(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "net.pth")
    with pytest.raises(UnknownBackbone, match="did you mean"):
        open_sources(None, {"pets": f"resnet5@{tmp_path / 'net.pth'}"})


CODE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

def described():
    net = Net()
    net.default_cfg = {"input_size": (3, 8, 8), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "classifier": "1"}
    return net

ready = Net()

def broken():
    raise RuntimeError("no weights today")

def number():
    return 7
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks_of_a_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "networks_of_a_user", raising=False)


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize("name", ["Net", "ready", "described"])
def test_a_callable_gives_a_network(name: str) -> None:
    options = InputOptions("in-graph", 8, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    architecture = open_architecture(parse_reference(f"networks_of_a_user:{name}"), options)
    assert architecture.network(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert architecture.preprocessing is not None
    assert (architecture.height, architecture.preprocessing.mean) == (8, (0.1, 0.2, 0.3))


@pytest.mark.usefixtures("code")
def test_a_networks_own_description_is_believed() -> None:
    architecture = open_architecture(parse_reference("networks_of_a_user:described"), InputOptions())
    assert architecture.preprocessing is not None
    assert (architecture.preprocessing.width, architecture.preprocessing.std) == (8, (0.5, 0.5, 0.5))


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (InputOptions(), "give image_size and mean and std"),
        (InputOptions(image_size=8, mean=(0.5, 0.5, 0.5)), r"images it takes; give std\."),
        (InputOptions("none"), r"images it takes; give image_size\."),
    ],
)
def test_images_that_nobody_describes(options: InputOptions, words: str) -> None:
    with pytest.raises(UnknownInput, match=words):
        open_sources(None, {"pets": "networks_of_a_user:Net"}, options)


@pytest.mark.usefixtures("code")
def test_without_preprocessing_the_size_is_enough() -> None:
    architecture = open_architecture(parse_reference("networks_of_a_user:Net"), InputOptions("none", 8))
    assert (architecture.height, architecture.preprocessing) == (8, None)


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("networks_of_a_user:broken", r"cannot be loaded \(RuntimeError: no weights today\); name a callable"),
        ("networks_of_a_user:absent", "AttributeError"),
        ("networks_of_a_user:number", "gives a int and no torch network"),
        ("no_such_module:make", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_code_that_gives_no_network(name: str, words: str) -> None:
    with pytest.raises(BadCode, match=words):
        open_sources(None, {"pets": name})


@pytest.mark.usefixtures("code")
def test_a_task_checkpoint_cannot_go_on_a_callable(tmp_path: Path) -> None:
    from benchmarks.models.synthetic import random_task
    from tuning.network.checkpoint import save_task

    save_task(random_task(BACKBONE, (), 3, seed=0), tmp_path / "pets.safetensors")
    with pytest.raises(ExportError, match="was tuned on a timm or torchvision network"):
        open_sources("networks_of_a_user:described", {"pets": tmp_path / "pets.safetensors"})


def test_every_refusal_is_one_that_the_command_line_catches() -> None:
    assert issubclass(BadCheckpoint, TuningError)
    assert all(issubclass(error, ExportError) for error in (BadModel, BadCode, NeedsBackbone, NonFiniteWeights, UnknownInput))


def test_a_network_of_a_package_has_its_weights_as_a_task_and_as_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_made_up(tmp_path, monkeypatch, "test_resnet")
    reference, options = parse_reference("pypi:made_up"), InputOptions(image_size=32)
    wanted = random_network("test_resnet").state_dict()
    given = open_architecture(reference, options, pretrained=True).network.state_dict()
    assert all(torch.equal(given[name], tensor) for name, tensor in wanted.items())
    sources = open_sources("pypi:made_up", {"whole": "pypi:made_up"}, options)
    task = sources.tasks["whole"]()
    assert task.provenance == {"network": "pypi:made_up"}
    assert task.preprocessing is not None
    assert (task.preprocessing.height, task.preprocessing.mean) == (32, (0.5, 0.5, 0.5))
