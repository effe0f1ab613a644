from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.models.synthetic import random_task
from tests.nets import tiny_resnet, tiny_vit
from tuning.active.margin import margins
from tuning.active.unlabelled import UnlabelledImage, rank_pool, write_candidates
from tuning.errors import BackboneMismatch, BadData, CannotWrite
from tuning.network.checkpoint import build_network
from tuning.network.normalise import Normalise


def _fill(folder: Path, count: int) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    (folder / "deep").mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / ("deep" if index % 2 else ".") / f"{index:03}.png")
    return images


def test_a_pool_is_ranked_by_margin(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    task = random_task(backbone, ("layer4.1",), 3, seed=0)
    images = _fill(tmp_path, 70)  # more than one batch
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    told: list[tuple[int, int]] = []
    ranking = rank_pool(backbone, task, tmp_path, on_image=lambda done, total: told.append((done, total)))
    assert ranking.skipped == ("notes.txt", "broken.png")
    assert [remark.split(":")[0] for remark in ranking.remarks] == [
        "Left out as of no kind of picture that can be read here (.txt)",
        "Left out as damaged or no images",
    ]
    assert told[-1] == (71, 71)
    with torch.inference_mode():
        scores = build_network(backbone, task)(Normalise(backbone.spec.preprocessing)(torch.from_numpy(images)))
    expected = margins(torch.softmax(scores, 1).numpy())
    by_file = {candidate.file: candidate for candidate in ranking.candidates}
    for index, margin in enumerate(expected):
        candidate = by_file[f"deep/{index:03}.png" if index % 2 else f"{index:03}.png"]
        assert candidate.margin == pytest.approx(margin, abs=1e-5)
        assert candidate.predicted == task.labels[int(scores[index].argmax())]
    found = [candidate.margin for candidate in ranking.candidates]
    assert found == sorted(found)
    assert len(found) == 70


def test_a_pool_without_images_is_refused(tmp_path: Path) -> None:
    backbone = tiny_resnet()
    task = random_task(backbone, (), 3, seed=0)
    with pytest.raises(BadData, match="no readable images"):
        rank_pool(backbone, task, tmp_path)
    with pytest.raises(BadData, match="is not a folder"):
        rank_pool(backbone, task, tmp_path / "absent")


def test_a_task_of_another_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneMismatch):
        rank_pool(tiny_vit(), random_task(tiny_resnet(), (), 3, seed=0), tmp_path)


def test_candidates_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "next.csv"
    write_candidates([UnlabelledImage("a, b.png", 0.25, "cat"), UnlabelledImage("c.png", 0.5, "dog")], path)
    assert path.read_text().splitlines() == ["file,margin,predicted", '"a, b.png",0.250000,cat', "c.png,0.500000,dog"]
    with pytest.raises(CannotWrite):
        write_candidates([], tmp_path / "absent" / "next.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["next.csv"]
