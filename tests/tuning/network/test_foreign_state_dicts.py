"""State dicts with what training left around them: prefixes, keys, other tensors, other forms."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tuning.errors import BadCheckpoint
from tuning.network import numpy_scalars
from tuning.network.state_dicts import read_state_dict


class Wrapped(nn.Module):
    """A network whose own names begin with what others are rid of."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()


def network(classes: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


NETWORK = network()
WEIGHTS = {name: tensor + 1 for name, tensor in NETWORK.state_dict().items()}
OTHERS = {name: tensor + 2 for name, tensor in WEIGHTS.items()}


def under(prefix: str, tensors: Mapping[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in tensors.items()}


def save(content: Any, file: Path) -> Path:
    save_file(content, file) if file.suffix == ".safetensors" else torch.save(content, file)
    return file


def is_weights(found: Mapping[str, Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod.module."]
)
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".bin", ".ckpt", ".safetensors"])
def test_what_training_puts_before_every_name_is_taken_off_and_said(tmp_path: Path, prefix: str, suffix: str) -> None:
    found = read_state_dict(save(under(prefix), tmp_path / f"net{suffix}"), NETWORK)
    assert is_weights(found.tensors)
    assert found.remark == f"net{suffix}: {prefix!r} is taken off the names of its tensors."


def test_a_part_that_was_compiled_by_itself(tmp_path: Path) -> None:
    tensors = {name.replace("1.", "1._orig_mod."): tensor for name, tensor in WEIGHTS.items()}
    found = read_state_dict(save(under("module.", tensors), tmp_path / "net.pth"), NETWORK)
    assert is_weights(found.tensors)
    assert "'_orig_mod.module.' is taken off" in found.remark


def test_a_networks_own_prefix_stays(tmp_path: Path) -> None:
    wrapped = Wrapped()
    for prefix in ("", "module."):
        found = read_state_dict(save(under(prefix, wrapped.state_dict()), tmp_path / "net.pth"), wrapped)
        assert found.tensors.keys() == wrapped.state_dict().keys()
        assert bool(found.remark) == bool(prefix)
    lacking = under("", wrapped.state_dict())
    del lacking["model.0.weight"]
    assert read_state_dict(save(lacking, tmp_path / "net.pth"), wrapped).tensors.keys() == lacking.keys()


def test_what_a_lightning_module_holds_beside_the_network_is_left_out_and_said(tmp_path: Path) -> None:
    content = {
        "state_dict": {**under("model."), "criterion.weight": torch.ones(2), "metric.seen": torch.ones(1)},
        "hyper_parameters": {"lr": 0.1, "layers": [1, 2]},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": "runs"}},
        "pytorch-lightning_version": "2.5.0",
    }
    found = read_state_dict(save(content, tmp_path / "last.ckpt"), NETWORK)
    assert is_weights(found.tensors)
    assert found.remark == "last.ckpt: the tensors under 'model.' are taken, without 2 others (criterion.weight, ...)."


def test_others_without_a_prefix_between_them_are_not_passed_over(tmp_path: Path) -> None:
    content = {**WEIGHTS, "criterion.weight": torch.ones(2)}
    assert read_state_dict(save(content, tmp_path / "net.pth"), NETWORK).tensors.keys() == content.keys()


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        ({"net": WEIGHTS, "epoch": 3}, "Of net.pth, what is under 'net' is taken."),
        ({"params": WEIGHTS}, "Of net.pth, what is under 'params' is taken."),
        ({"trainer": {"state_dict": under("module.")}}, "what is under 'trainer' is taken. net.pth: 'module.' is taken off"),
        ({"model_state_dict": WEIGHTS, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}}}, ""),
        (
            {"generator": WEIGHTS, "discriminator": {"0.weight": torch.ones(2)}},
            "holds several state dicts (generator, discriminator); generator is taken.",
        ),
        (
            {"model": {"0.weight": torch.ones(2)}, "net": WEIGHTS},
            "holds several state dicts (model, net); net is taken.",
        ),
        ({"params": OTHERS, "params_ema": WEIGHTS}, "(params_ema) beside others (params)"),
        ({**WEIGHTS, "epoch": 3}, "Of net.pth, tensors alone are taken, without 'epoch'."),
    ],
)
def test_state_dicts_under_keys(tmp_path: Path, content: Any, remark: str) -> None:
    found = read_state_dict(save(content, tmp_path / "net.pth"), NETWORK)
    assert is_weights(found.tensors)
    assert remark in found.remark
    assert bool(remark) == bool(found.remark)


def test_counters_of_batches_may_lack_as_for_torch_itself(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in WEIGHTS.items() if "num_batches" not in name}
    network().load_state_dict(tensors)
    found = read_state_dict(save(tensors, tmp_path / "net.pth"), NETWORK)
    assert found.tensors.keys() == WEIGHTS.keys()
    assert found.tensors["1.num_batches_tracked"] == 0


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_sparse_tensors_become_dense(tmp_path: Path, sparse: Any) -> None:
    content = {**WEIGHTS, "3.weight": sparse(WEIGHTS["3.weight"])}
    found = read_state_dict(save(content, tmp_path / "net.pth"), NETWORK)
    assert is_weights(found.tensors)
    assert found.tensors["3.weight"].layout == torch.strided


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            dict(enumerate(WEIGHTS.values())),
            r"holds 9 tensors by number, without the names that say what they are; save the weights",
        ),
        ({"state_dict": dict(enumerate(WEIGHTS.values()))}, "holds 9 tensors by number"),
        (list(WEIGHTS.values()), "holds 9 tensors by number"),
        ({name: tensor.to("meta") for name, tensor in WEIGHTS.items()}, r"hold no data \(0\.weight is on torch's meta device\)"),
        ({"student": WEIGHTS, "teacher": OTHERS}, r"holds several state dicts \(student, teacher\); save the one that is meant"),
        ({"epoch": 3}, "holds no state dict"),
        (
            {"state_dict": WEIGHTS, "hyper_parameters": argparse.Namespace(lr=0.1)},
            r"refused \(argparse\.Namespace\); save the",
        ),
        (
            network(),
            r"refused \(torch\.nn\.modules\.container\.Sequential\); save the weights alone, by torch\.save",
        ),
    ],
)
def test_what_cannot_be_taken_is_one_sentence_that_says_what_would_be_right(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(BadCheckpoint, match=words) as raised:
        read_state_dict(save(content, tmp_path / "net.pth"), NETWORK)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantised_tensors_are_named(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8)
    with pytest.raises(BadCheckpoint, match=r"are quantised \(3\.weight\); save the network as it was before that"):
        read_state_dict(save({**WEIGHTS, "3.weight": quantised}, tmp_path / "net.pth"), NETWORK)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "net.pt")
    with pytest.raises(BadCheckpoint, match="is a TorchScript archive, which holds code; save the weights alone"):
        read_state_dict(tmp_path / "net.pt", NETWORK)


@pytest.mark.parametrize(
    "number",
    [np.float64(0.5), np.float32(1.5), np.int64(-3), np.bool_(True), np.dtype(">f8").type(2)],
    ids=lambda number: number.dtype.name,
)
@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_numbers_of_numpy_beside_the_weights_are_no_code(tmp_path: Path, number: np.generic, module: str) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "best": number, "all": [number]}, tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    if module == "numpy.core":  # as numpy 1 writes it; the archive is put together again, since it has checksums
        renamed(tmp_path / "net.pth", b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert (tmp_path / "net.pth").read_bytes() != content
    assert list(read_state_dict(tmp_path / "net.pth").tensors) == ["w"]


@pytest.mark.parametrize("code", ["O", "V8", "f8,f8", "no type", 3])
def test_what_numpy_would_make_of_bytes_besides_is_refused(tmp_path: Path, code: object) -> None:
    dtype = numpy_scalars._Dtype(code)  # type: ignore[arg-type]
    dtype.__setstate__((3, "<"))
    with pytest.raises(ValueError, match=r"no number|no type"):
        numpy_scalars._scalar(dtype, b"12345678")
    with pytest.raises(ValueError, match="no number"):
        numpy_scalars._scalar(np.dtype("f8"), b"12345678")


def test_numbers_of_numpy_are_what_they_were() -> None:
    little, big = numpy_scalars._Dtype("f8"), numpy_scalars._Dtype("f8")
    little.__setstate__((3, "<"))
    big.__setstate__((3, ">"))
    assert (
        numpy_scalars._scalar(little, np.float64(0.25).tobytes())
        == numpy_scalars._scalar(big, np.array(0.25, ">f8").tobytes())
        == 0.25
    )


def test_arrays_of_numpy_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "all": np.ones(3)}, tmp_path / "net.pth")
    with pytest.raises(BadCheckpoint, match=r"pickled code, which is refused \(numpy.*_reconstruct\)"):
        read_state_dict(tmp_path / "net.pth")


def renamed(file: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(old, new))
