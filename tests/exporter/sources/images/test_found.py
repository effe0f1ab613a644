"""How an image becomes the input of an ONNX file: as somebody says, its metadata, the files beside it, or its first operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from contract.preprocessing import Preprocessing
from exporter.sources.images.found import find_preprocessing, image_input, stated
from exporter.sources.images.said import read_said
from tests.exporter.image_nets import SIDE, image_net, save

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN = [("Sub", MEAN), ("Div", STD)]
BGR = [("Sub", MEAN[::-1]), ("Div", STD[::-1])]
BYTES = ("rows", SIDE, SIDE, 3)
FREE = ("rows", 3, "height", "width")
TRANSFORMERS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 10},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}
TIMM = {"pretrained_cfg": {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "crop_pct": 0.8, "mean": MEAN, "std": STD}}
ULTRALYTICS = {"author": "Ultralytics", "imgsz": f"[{SIDE}, {SIDE}]"}
EXPECTED = Preprocessing(SIDE, SIDE, MEAN, STD, "bicubic", 0.8)


def find(folder: Path, model: onnx.ModelProto, **beside: Mapping[str, Any]) -> tuple[Preprocessing | None, str]:
    file = save(folder, "net", model)
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return find_preprocessing(ir.from_proto(onnx.load(file)), file)


def close(found: Preprocessing | None, expected: Preprocessing) -> None:
    assert found is not None
    assert (found.height, found.width, found.interpolation) == (expected.height, expected.width, expected.interpolation)
    for ours, theirs in zip(
        (*found.mean, *found.std, found.crop_fraction), (*expected.mean, *expected.std, expected.crop_fraction), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("sizes", [("rows", 3, SIDE, SIDE), ("rows", SIDE, SIDE, 3), FREE, ("rows", 3, "side", "side")])
@pytest.mark.parametrize(("name", "content"), [("preprocessor_config", TRANSFORMERS), ("config", TIMM)])
def test_a_file_beside_it_says_it(tmp_path: Path, name: str, content: dict[str, Any], sizes: tuple[int | str, ...]) -> None:
    found, said = find(tmp_path, image_net(sizes=sizes), **{name: content})
    close(found, EXPECTED)
    assert said == f"takes images as {name}.json beside it says."


@pytest.mark.parametrize(
    ("changed", "mean", "std", "crop", "but"),
    [
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3, 0.8, ""),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, (0.5,) * 3, (0.5,) * 3, 0.8, ""),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, (0.5,) * 3, (0.5,) * 3, 0.8, ""),
        ({"size": 10, "crop_size": SIDE}, MEAN, STD, 0.8, ""),
        ({"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}, MEAN, STD, 1.0, "both sides are resized there"),
        ({"size": {"shortest_edge": SIDE}, "do_center_crop": False, "crop_pct": 0.5}, MEAN, STD, 0.5, ""),
        ({"size": {"shortest_edge": SIDE}, "do_center_crop": False}, MEAN, STD, 1.0, "pictures are not cropped there"),
        ({"do_resize": False}, MEAN, STD, 0.8, "pictures are not resized there"),
        ({"include_top": True, "image_std": [0.5] * 3}, MEAN, (0.25,) * 3, 0.8, ""),  # EfficientNet divides twice
        ({"image_processor_type": "EfficientNetImageProcessor", "image_std": [0.5] * 3}, MEAN, (0.25,) * 3, 0.8, ""),
        ({"include_top": True, "do_normalize": False, "image_std": [0.5] * 3}, (0.0,) * 3, (0.5,) * 3, 0.8, ""),
    ],
)
def test_what_transformers_write_is_arithmetic(
    tmp_path: Path, changed: dict[str, Any], mean: Any, std: Any, crop: float, but: str
) -> None:
    found, said = find(tmp_path, image_net(), preprocessor_config=TRANSFORMERS | changed)
    close(found, Preprocessing(SIDE, SIDE, mean, std, "bicubic", crop))
    assert but in said
    assert ("(" in said) == bool(but)


@pytest.mark.parametrize(
    ("metadata", "mean", "std"),
    [
        ({"preprocessing": EXPECTED.to_json()}, MEAN, STD),
        ({"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "NominalRange_0_255"}, (0.0,) * 3, (1 / 255,) * 3),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, (0.5,) * 3, (0.5,) * 3),
        (ULTRALYTICS, (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_its_own_metadata_say_it_and_go_before_files_beside_it(
    tmp_path: Path, metadata: dict[str, str], mean: Any, std: Any
) -> None:
    found, said = find(tmp_path, image_net(metadata=metadata), preprocessor_config=TRANSFORMERS | {"do_normalize": False})
    assert found is not None
    assert (found.mean, found.std, said.startswith("takes images as its metadata")) == (mean, std, True)


@pytest.mark.parametrize(
    ("first", "dtype", "mean", "std", "range_"),
    [
        (OWN, TensorProto.FLOAT, (0.0,) * 3, (1.0,) * 3, " from 0 to 1"),
        ([("Div", [255.0]), *OWN], TensorProto.FLOAT, (0.0,) * 3, (1 / 255,) * 3, " from 0 to 255"),
        ([("Mul", [1 / 127.5]), ("Add", [-1.0])], TensorProto.FLOAT, (0.0,) * 3, (1 / 255,) * 3, " from 0 to 255"),
        ([("Mul", [2.0]), ("Sub", [1.0])], TensorProto.FLOAT, (0.0,) * 3, (1.0,) * 3, " from 0 to 1"),
        ([("Div", [255.0]), *OWN], TensorProto.UINT8, MEAN, STD, ""),
    ],
)
def test_a_network_that_normalises_itself_is_given_what_it_begins_with(
    tmp_path: Path, first: Any, dtype: int, mean: Any, std: Any, range_: str
) -> None:
    sizes = ("rows", SIDE, SIDE, 3) if dtype == TensorProto.UINT8 else ("rows", 3, SIDE, SIDE)
    found, said = find(tmp_path, image_net(first, sizes=sizes, dtype=dtype))
    close(found, Preprocessing(SIDE, SIDE, mean, std, "bilinear"))
    assert said.startswith(
        f"normalises images{range_} itself. Nothing says how they are resized, or in which order channels come"
    )
    assert said.endswith("in RGB.")


def test_of_timm_what_is_not_said_is_as_timm_takes_it(tmp_path: Path) -> None:
    bare = {name: TIMM["pretrained_cfg"][name] for name in ("input_size", "mean", "std")}
    found, _ = find(tmp_path, image_net(), config={"pretrained_cfg": bare})
    assert found == Preprocessing(SIDE, SIDE, MEAN, STD, "bicubic", 0.875)
    for mode, words in (("squash", "both sides are resized there"), ("border", "and the rest filled")):
        assert words in find(tmp_path, image_net(), config={"pretrained_cfg": {**bare, "crop_mode": mode}})[1]


def test_bytes_are_never_normalised_twice_and_who_does_it_is_said(tmp_path: Path) -> None:
    own = image_net([("Div", [255.0]), *OWN], sizes=BYTES, dtype=TensorProto.UINT8)
    found, said = find(tmp_path, own, preprocessor_config=TRANSFORMERS)
    close(found, EXPECTED)
    assert said == "takes images as preprocessor_config.json beside it says."
    close(find(tmp_path, own, preprocessor_config=TRANSFORMERS | {"do_normalize": False})[0], EXPECTED)
    found, said = find(tmp_path, image_net(sizes=BYTES, dtype=TensorProto.UINT8), preprocessor_config=TRANSFORMERS)
    close(found, EXPECTED)
    assert said.endswith("(it takes bytes, so that it has to normalise them itself).")
    assert stated(ir.from_proto(own), read_said(EXPECTED)) == (EXPECTED, "")


def test_what_is_assumed_of_metadata_is_said(tmp_path: Path) -> None:
    assert "taken to be in the order RGB" in find(tmp_path, image_net(metadata={"Image.NominalPixelRange": "Normalized_0_1"}))[1]
    assert "padded" in find(tmp_path, image_net(metadata=ULTRALYTICS))[1]
    assert "padded" not in find(tmp_path, image_net(metadata={**ULTRALYTICS, "task": "classify"}))[1]
    _, said = stated(ir.from_proto(image_net(BGR)), read_said("mean=0,std=1"))
    assert said == "gets RGB, though it normalises images with the means of ImageNet in the order BGR."


@pytest.mark.parametrize("first", [[], [("Mul", [0.5])], [("Sub", MEAN)], [("Mul", [1e6]), ("Add", [1.0])]])
def test_what_is_no_normalisation_says_nothing(tmp_path: Path, first: Any) -> None:
    assert find(tmp_path, image_net(first)) == (None, "")


@pytest.mark.parametrize(
    ("model", "beside", "words"),
    [
        (
            image_net(OWN),
            {"preprocessor_config": TRANSFORMERS},
            "it normalises images itself, so that it would be done a second time.",
        ),
        (
            image_net([("Div", [255.0]), *OWN]),
            {"preprocessor_config": TRANSFORMERS | {"do_normalize": False}},
            "it begins with what values from 0 to 255 need, not those to 1.",
        ),
        (
            image_net(OWN, metadata={"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "NominalRange_0_255"}),
            {},
            "it begins with what values from 0 to 1 need, not those to 255.",
        ),
        (
            image_net([("Div", [255.0]), *OWN], sizes=BYTES, dtype=TensorProto.UINT8),
            {"preprocessor_config": TRANSFORMERS | {"image_mean": [0.5] * 3}},
            "it normalises images itself, with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225.",
        ),
        (image_net(BGR), {}, "it normalises images with the means of ImageNet in the order BGR, and images are RGB here."),
        (
            image_net([("Div", [255.0]), *BGR], sizes=BYTES, dtype=TensorProto.UINT8),
            {"preprocessor_config": TRANSFORMERS},
            "with the means of ImageNet in the order BGR",
        ),
        (
            image_net(OWN, metadata={"Image.BitmapPixelFormat": "Bgr8"}),
            {"preprocessor_config": TRANSFORMERS | {"do_normalize": False}},
            "its metadata say that images are of the pixel format Bgr8, and images are RGB here.",
        ),
        (
            image_net(),
            {"preprocessor_config": TRANSFORMERS | {"crop_size": 7}},
            "it takes images of 8 x 8 pixels (height x width), not of 7 x 7.",
        ),
        (
            image_net(),
            {"preprocessor_config": TRANSFORMERS | {"do_flip_channel_order": True}},
            "it turns RGB into BGR, which is not done here.",
        ),
        (image_net(), {"preprocessor_config": TRANSFORMERS | {"resample": 5}}, "its filter 5 is not one of Pillow's 0, 1, 2, 3."),
        (image_net(), {"preprocessor_config": TRANSFORMERS | {"image_std": [0, 0, 0]}}, "std must be positive"),
        (
            image_net(),
            {"preprocessor_config": TRANSFORMERS | {"size": {"longest_edge": 3}}},
            "does not say it in a way that is known.",
        ),
        (image_net(), {"preprocessor_config": {"do_ocr": 1}}, "it says nothing of images."),
        (image_net(), {"config": {"pretrained_cfg": {"mean": 3}}}, "does not say it in a way that is known."),
        (
            image_net(sizes=FREE),
            {"preprocessor_config": {"do_normalize": False}},
            "it takes images of any size, and no size is said.",
        ),
        (image_net(sizes=FREE, metadata={"Image.NominalPixelRange": "Normalized_0_1"}), {}, "no size is said."),
        (image_net(OWN, sizes=FREE), {}, "takes arrays alone: it normalises images itself, but it takes images of any size"),
        (image_net(metadata={"Image.NominalPixelRange": "x"}), {}, "of the range x, which is none of NominalRange_0_255,"),
        (
            image_net(metadata={"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_0_1"}),
            {},
            "of the pixel format Bgr8",
        ),
        (image_net(metadata={"preprocessing": "{"}), {}, "not in a way that is known."),
        (image_net(metadata={"author": "Ultralytics", "imgsz": "__import__('os')"}), {}, "not in a way that is known."),
    ],
)
def test_what_cannot_be_followed_is_said_and_nothing_is_taken(
    tmp_path: Path, model: onnx.ModelProto, beside: Any, words: str
) -> None:
    found, said = find(tmp_path, model, **beside)
    assert (found, said.startswith("takes arrays alone: "), words in said) == (None, True, True), said


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ("imagenet", Preprocessing(SIDE, SIDE, MEAN, STD, "bilinear")),
        ("imagenet,size=8,interpolation=bicubic,crop=0.8", EXPECTED),
        ("mean=0.5,std=0.25", Preprocessing(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3, "bilinear")),
        ("mean=0.485+0.456+0.406,std=0.229+0.224+0.225,size=8x8", Preprocessing(SIDE, SIDE, MEAN, STD, "bilinear")),
        (EXPECTED, EXPECTED),
    ],
)
def test_somebody_says_it(spoken: Any, expected: Preprocessing) -> None:
    assert stated(ir.from_proto(image_net()), read_said(spoken)) == (expected, "")


def test_what_is_said_goes_before_what_is_found_and_a_second_normalisation_is_said(tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text(json.dumps(TRANSFORMERS))
    found, said = stated(ir.from_proto(image_net(OWN)), read_said(str(tmp_path / "said.json")))
    close(found, EXPECTED)
    assert said == "normalises images itself, and gets them normalised, as was said."


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        ("imagenet,size=9", "it takes images of 8 x 8 pixels (height x width), not of 9 x 9"),
        ("size=8", "it takes floats, and mean and std are not said"),
        ("mean=0.5,std=0", "std must be positive"),
        ("imagenet,crop=2", "crop_fraction must be in (0, 1], not 2.0"),
        ("imagenet,interpolation=cubic", "interpolation must be one of nearest, bilinear, bicubic, lanczos"),
        ("mean=1+2", "'1+2' is not one number, or three with a plus between them"),
        ("mean=x", "'x' is no number"),
        ("size=big", "'big' is no size such as 224 or 384x512"),
        ("colour=red", "'colour=red' is none of imagenet, size=, mean=, std=, interpolation=, crop=, or a file .json"),
        ("nowhere.json", "nowhere.json cannot be read: No such file or directory"),
    ],
)
def test_what_does_not_do_is_said_in_a_clause(spoken: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        stated(ir.from_proto(image_net()), read_said(spoken))
    assert words in str(caught.value)


def test_only_one_input_with_three_channels_can_be_an_image() -> None:
    for sizes in (("rows", 4, SIDE, SIDE), ("rows", SIDE, SIDE, 1)):
        model = image_net()
        for place, size in enumerate(sizes[1:], 1):
            model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = int(size)
        assert image_input(ir.from_proto(model)) is None
    model = image_net(dtype=TensorProto.UINT8)
    assert image_input(ir.from_proto(model)) is None  # pictures are not of this form as bytes
    with pytest.raises(ValueError, match="its network takes no image"):
        stated(ir.from_proto(model), read_said("imagenet"))
