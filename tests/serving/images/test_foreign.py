"""Networks of others that take images as floats, over /predict: the server resizes and normalises, the network answers as ever over v2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import espalier
from contract.errors import InvalidRequest
from contract.preprocessing import Preprocessing
from contract.repository import read_repository
from exporter.errors import GivenToNobody, KindNeedsImages, PreprocessingDoesNotFit
from tests.espalier.test_cli import espalier as command
from tests.exporter.image_nets import SIDE, image_net, save

pytestmark = pytest.mark.usefixtures("forked_preflight", "unsynced")
HOW = Preprocessing(SIDE, SIDE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bilinear", 0.8)
SAID = f"size={SIDE},mean=0.4+0.5+0.6,std=0.2+0.3+0.4,crop=0.8"


def picture() -> Image.Image:
    image = Image.new("RGB", (20, 30), "navy")
    ImageDraw.Draw(image).rectangle([5, 10, 14, 19], fill="orange")
    return image


def seen() -> np.ndarray:
    """What the network is to see, by hand: (1, 3, SIDE, SIDE)."""
    pixels = (HOW(picture()).astype(np.float64) / 255 - HOW.mean) / HOW.std
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("sizes", [("rows", 3, SIDE, SIDE), ("rows", SIDE, SIDE, 3), ("rows", 3, "height", "width")])
def test_what_was_said_is_done_to_each_picture(tmp_path: Path, small_sizes: None, sizes: tuple[int | str, ...]) -> None:
    files = {
        "means": save(tmp_path, "means", image_net(sizes=sizes)),
        "map": save(tmp_path, "map", image_net(sizes=sizes, gives_map=True)),
    }
    espalier.export(files, tmp_path / "repo", kinds={"means": "values", "map": "mask"}, preprocessing={"means": HOW, "map": SAID})
    with espalier.open(tmp_path / "repo") as repo:
        assert repo.repository.tasks["map"].preprocessing == HOW
        found = repo.predict([picture()] * 2).tasks
        for answer in found["means"]:
            np.testing.assert_allclose([value.value for value in answer.values], seen().mean((0, 2, 3)), atol=1e-5)
        assert (found["map"][1].width, found["map"][1].height) == (20, 30)
        assert {area.label for area in found["map"][1].areas} == {"0", "2"}  # red where it is orange, else blue
        floats = seen() if sizes[1] == 3 else seen().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(repo.infer("means", {"image": floats})["means"][0], seen().mean((0, 2, 3)), atol=1e-5)


def test_without_it_it_is_refused_in_a_sentence_and_v2_answers(tmp_path: Path) -> None:
    file, repo = save(tmp_path, "means", image_net()), tmp_path / "repo"
    run = command("export", "--task", f"means={file}", "--out", repo)
    assert run.returncode == 0, run.stderr
    assert (
        "It is not known how an image becomes the input of means: asked over v2 alone. --preprocessing TASK=HOW says it."
        in run.stdout
    )
    with espalier.open(repo) as opened:
        with pytest.raises(InvalidRequest) as caught:
            opened.predict(picture(), ["means"])
        assert str(caught.value) == (
            "Task 'means' takes no images, since nobody has said how one becomes its input: add its model again with a preprocessing "
            "(mean, std, and size where it is free), or send it tensors through v2/models/means/infer."
        )
        assert opened.infer("means", {"image": seen()})["means"].shape == (1, 3)


def test_it_can_be_said_later_and_stays_with_new_versions(tmp_path: Path) -> None:
    file, repo = save(tmp_path, "means", image_net()), tmp_path / "repo"
    espalier.export({"means": file}, repo)
    for words, version in ((["--preprocessing", f"means={SAID}"], "2"), ([], "2")):
        run = command("deploy", f"means={file}", "--to", repo, *words)
        assert run.returncode == 0, run.stderr
        task = read_repository(repo).tasks["means"]
        assert (task.preprocessing, task.version, task.takes) == (HOW, version, "image")
    other = save(tmp_path / "other", "means", image_net([("Mul", [2.0])]))
    report = espalier.add(repo, {"means": other}, replace=True)
    assert (report.repository.tasks["means"].preprocessing, report.inherited["means"]) == (HOW, ("preprocessing",))


def test_a_new_version_that_cannot_be_followed_does_not_get_images_as_before(tmp_path: Path) -> None:
    file, repo = save(tmp_path, "means", image_net()), tmp_path / "repo"
    espalier.export({"means": file}, repo, preprocessing={"means": HOW})
    turned = save(tmp_path / "turned", "means", image_net([("Mul", [2.0])], metadata={"Image.BitmapPixelFormat": "Bgr8"}))
    report = espalier.add(repo, {"means": turned}, replace=True)
    assert (report.repository.tasks["means"].preprocessing, report.inherited["means"]) == (None, ("layout of images",))
    assert "takes arrays alone: its metadata say that images are of the pixel format Bgr8" in report.remarks["means"]


def test_what_the_file_says_is_taken_with_a_line(tmp_path: Path) -> None:
    said = {"do_normalize": True, "image_mean": HOW.mean, "image_std": HOW.std, "size": SIDE}
    file = save(tmp_path, "means", image_net())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    run = command("export", "--task", f"means={file}", "--out", tmp_path / "repo")
    assert run.returncode == 0, run.stderr
    assert "takes images as preprocessor_config.json beside it says (both sides are resized there" in " ".join(run.stdout.split())
    found = read_repository(tmp_path / "repo").tasks["means"].preprocessing
    assert found is not None
    assert (found.mean, found.std) == (HOW.mean, pytest.approx(HOW.std))


def test_of_a_file_that_says_it_otherwise_than_it_can_be_done_nobody_says_that_nothing_says_it(tmp_path: Path) -> None:
    file = save(tmp_path, "means", image_net(metadata={"Image.BitmapPixelFormat": "Bgr8"}))
    run = command("export", "--task", f"means={file}", "--out", tmp_path / "repo")
    said = " ".join(run.stdout.split())
    assert "means takes arrays alone: its metadata say that images are of the pixel format Bgr8" in said
    assert "It is not known how an image becomes the input of means: asked over v2 alone." in said
    assert "Nothing says how an image" not in said


def test_a_kind_about_images_needs_it(tmp_path: Path) -> None:
    file = save(tmp_path, "map", image_net(gives_map=True))
    with pytest.raises(
        KindNeedsImages, match="It is not known how an image becomes the input of task 'map', and a mask lies in one"
    ):
        espalier.export({"map": file}, tmp_path / "repo", kinds={"map": "mask"})
    run = command("export", "--task", f"map={file}", "--kind", "map=mask", "--out", tmp_path / "repo")
    assert (run.returncode, "Give --preprocessing map=HOW." in run.stderr) == (2, True), run.stderr
    assert not (tmp_path / "repo").exists()


def test_what_does_not_do_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    file, repo = save(tmp_path, "means", image_net()), tmp_path / "repo"
    with pytest.raises(
        PreprocessingDoesNotFit, match=r"for task 'means' does not do: it takes images of 8 x 8 pixels .*, not of 9 x 9\."
    ):
        espalier.export({"means": file}, repo, preprocessing={"means": "imagenet,size=9"})
    with pytest.raises(
        PreprocessingDoesNotFit, match=r"does not do: its model is no ONNX file; of a torch network, give the image size"
    ):
        espalier.export({"means": "tests.kinds_nets:means"}, repo, preprocessing={"means": "imagenet"})
    for what, given in (("preprocessing", {"preprocessing": {"mean": "imagenet"}}), ("kind", {"kinds": {"mean": "values"}})):
        with pytest.raises(GivenToNobody, match=rf"A {what} is given for 'mean', which is none of the tasks that come \(means\)"):
            espalier.export({"means": file}, repo, **given)  # type: ignore[arg-type]
    run = command("export", "--task", f"means={file}", "--preprocessing", "mean=imagenet", "--out", repo)
    assert (run.returncode, "'mean' is none of the tasks that come" in run.stderr) == (2, True), run.stderr
    assert not repo.exists()
