from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from contract.preprocessing import Preprocessing
from tests.nets import TINY_RESNET_OPTIONS, TINY_VIT_OPTIONS, tiny_resnet, tiny_vit
from tuning.errors import BackboneOptions, BadCheckpoint, TuningError, UnknownBackbone, UnsupportedNetwork, WeightsUnavailable
from tuning.network.backbone import BackboneSpec, load_backbone, save_backbone
from tuning.network.blocks import replace_head
from tuning.network.weights import hash_weights

pytestmark = pytest.mark.slow

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@settings(max_examples=40)
@given(
    st.sampled_from(["timm", "torchvision"]),
    st.text(max_size=8),
    st.dictionaries(st.text(max_size=4), st.integers() | st.lists(st.integers(), max_size=4) | st.booleans(), max_size=3),
    st.integers(1, 2000),
)
def test_spec_round_trips_through_json(library: str, name: str, options: dict[str, object], classes: int) -> None:
    spec = BackboneSpec(library, name, classes, Preprocessing(8, 9), "tag", "00", options)  # type: ignore[arg-type]
    assert BackboneSpec.from_json(spec.to_json()) == spec


def test_spec_with_tuples_equals_what_is_read_back() -> None:
    spec = replace(tiny_resnet().spec, options={"channels": (8, 8, 16, 16)})
    assert BackboneSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"preprocessing": {}}'])
def test_a_damaged_spec_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the sentence is the caller's)
        BackboneSpec.from_json(text)


def test_options_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(BackboneOptions, match="plain JSON"):
        replace(tiny_resnet().spec, options={"act_layer": torch.nn.ReLU})


@pytest.mark.parametrize("make", [tiny_resnet, tiny_vit])
@torch.no_grad()
def test_backbone_file_round_trip(tmp_path: Path, make: type) -> None:
    written = make()
    save_backbone(written, tmp_path / "backbone.safetensors")
    read = load_backbone(tmp_path / "backbone.safetensors")
    assert read.spec == written.spec
    assert not read.network.training
    assert torch.equal(read.network(IMAGES), written.network(IMAGES))


def test_hash_does_not_depend_on_the_head_but_on_all_else() -> None:
    backbone = tiny_resnet()
    replace_head(backbone.network, 9, seed=1)
    assert hash_weights(backbone.network) == backbone.spec.weights_sha256
    backbone.network.get_submodule("layer4.1.bn2").running_var[0] += 1
    assert hash_weights(backbone.network) != backbone.spec.weights_sha256


def test_changed_weights_in_a_backbone_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    backbone = tiny_resnet()
    backbone.network.get_submodule("conv1").weight.data[0] += 1
    save_backbone(backbone, path)
    with pytest.raises(BadCheckpoint, match="not those that its header names"):
        load_backbone(path)


def test_another_number_of_classes_gets_a_new_head(tmp_path: Path) -> None:
    save_backbone(tiny_resnet(), tmp_path / "backbone.safetensors")
    first, second = (load_backbone(tmp_path / "backbone.safetensors", num_classes=7) for _ in range(2))
    assert first.spec.num_classes == 7
    assert first.spec.weights_sha256 == tiny_resnet().spec.weights_sha256
    assert torch.equal(first.network.get_submodule("fc").weight, second.network.get_submodule("fc").weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.no_grad()
def test_weights_from_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    path, source = tmp_path / f"weights{suffix}", tiny_resnet()
    state = source.network.state_dict()
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        save_file(state, path)
    loaded = load_backbone("resnet18", path, options=TINY_RESNET_OPTIONS, num_classes=5, image_size=32)
    assert loaded.spec.weights_sha256 == source.spec.weights_sha256
    assert loaded.spec.weights == path.name
    assert (loaded.spec.preprocessing.height, loaded.spec.preprocessing.mean[0]) == (32, 0.485)
    loaded.network.get_submodule("fc").load_state_dict(source.network.get_submodule("fc").state_dict())
    assert torch.equal(loaded.network(IMAGES), source.network(IMAGES))


def test_a_vit_is_built_for_the_wanted_size(tmp_path: Path) -> None:
    save_file(tiny_vit().network.state_dict(), tmp_path / "vit.safetensors")
    options = {name: value for name, value in TINY_VIT_OPTIONS.items() if name != "img_size"}
    loaded = load_backbone("vit_tiny_patch16_224", tmp_path / "vit.safetensors", options=options, image_size=32)
    assert loaded.spec.options["img_size"] == 32
    assert loaded.spec.preprocessing.width == 32


def test_missing_and_extra_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = dict(tiny_resnet().network.state_dict())
    del state["conv1.weight"]
    state["unheard.of"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(BadCheckpoint, match=r"1 missing \(conv1\.weight\), 1 not in the network \(unheard\.of\)"):
        load_backbone("resnet18", path, options=TINY_RESNET_OPTIONS)


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(BadCheckpoint, match="pickled code, which is refused"):
        load_backbone("resnet18", path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "did you mean .*resnet"),
        ("torchvision/resnet81", "did you mean .*torchvision/resnet"),
        ("???", "give a timm name"),
    ],
)
def test_unknown_backbones_come_with_close_matches(name: str, hint: str) -> None:
    with pytest.raises(UnknownBackbone, match=hint):
        load_backbone(name)


def test_an_unknown_tag_lists_the_known() -> None:
    with pytest.raises(UnknownBackbone, match=r"did you mean .*resnet18\.a1_in1k"):
        load_backbone("resnet18.nonsense")


def test_a_network_without_published_weights_wants_a_checkpoint() -> None:
    with pytest.raises(WeightsUnavailable, match=r"timm has none for this network; give weights from a file, as \S+@FILE\.$"):
        load_backbone("resnet200")


def test_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub could be reached."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\nmore lines")

    monkeypatch.setattr("tuning.network.libraries.find_obstacle", lambda library, name: "")
    monkeypatch.setattr("timm.create_model", fail)
    words = r"Name or service not known; give weights from a file, as resnet18\.a1_in1k@FILE, or try again"
    with pytest.raises(WeightsUnavailable, match=words) as caught:
        load_backbone("resnet18.a1_in1k")
    assert "\n" not in str(caught.value)


def test_options_the_library_does_not_know_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneOptions, match="nonsense"):
        load_backbone("resnet18", tmp_path / "weights.safetensors", options={"nonsense": 1})


def test_options_beside_a_backbone_file_are_refused(tmp_path: Path) -> None:
    save_backbone(tiny_resnet(), tmp_path / "backbone.safetensors")
    with pytest.raises(BackboneOptions, match="give it alone"):
        load_backbone(tmp_path / "backbone.safetensors", options={"channels": [8]})


def test_a_size_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    save_backbone(tiny_vit(), tmp_path / "backbone.safetensors")
    with pytest.raises(UnsupportedNetwork, match="does not take RGB images of 40x40 pixels"):
        load_backbone(tmp_path / "backbone.safetensors", image_size=40)


def test_plain_weights_are_no_backbone_file(tmp_path: Path) -> None:
    save_file(tiny_resnet().network.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(BadCheckpoint, match="not a backbone file; give weights from elsewhere with their network, as NAME@FILE"):
        load_backbone(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["absent.safetensors", "./absent"])
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(TuningError, match="absent"):
        load_backbone(name)


def test_torchvision_preprocessing_is_that_of_its_weights(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet18(weights=None, num_classes=3).state_dict(), tmp_path / "weights.safetensors")
    preprocessing = load_backbone("torchvision/resnet18", tmp_path / "weights.safetensors").spec.preprocessing
    assert (preprocessing.height, preprocessing.interpolation, preprocessing.crop_fraction) == (224, "bilinear", 224 / 256)
