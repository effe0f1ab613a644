"""What to label next in a folder of images without labels: those that a tuned task is least sure of."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from tuning.active.margin import margins
from tuning.data.decode import Item, decode
from tuning.data.folders import scan
from tuning.data.labelled import require_classes
from tuning.data.left_out import sentences, together
from tuning.errors import BadData, CannotWrite
from tuning.network.backbone import Backbone
from tuning.network.checkpoint import TaskCheckpoint, build_network
from tuning.network.normalise import Normalise
from tuning.training.compute import Compute, find_compute

OnImage = Callable[[int, int], None]  # (images done, images in all)

_BATCH = 64


@dataclass(frozen=True)
class UnlabelledImage:
    """file: relative to the pool's folder. margin: by how much the first class is more likely than the second, in [0, 1].

    predicted: the first class's label.
    """

    file: str
    margin: float
    predicted: str


@dataclass(frozen=True)
class Ranking:
    """candidates: lowest margin first. skipped: files that were left out. remarks: why, in sentences."""

    candidates: tuple[UnlabelledImage, ...]
    skipped: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def rank_pool(
    backbone: Backbone, checkpoint: TaskCheckpoint, folder: Path, compute: Compute | None = None, on_image: OnImage | None = None
) -> Ranking:
    """Return the images in `folder`, folders inside included, the least certain ones first; of equal margins by name.

    Raises BackboneMismatch, WrongTensors, and BadData for a folder without images.
    """
    compute = compute or find_compute()
    require_classes(checkpoint.kind, "Active learning")
    network = nn.Sequential(Normalise(backbone.spec.preprocessing), build_network(backbone, checkpoint))
    compute.place(network.eval())
    if not folder.is_dir():
        raise BadData(f"{folder} is not a folder; give one of images to choose from.")
    contents = scan(folder)
    files, left_out = [image.as_posix() for image in contents.images], contents.left_out
    candidates: list[UnlabelledImage] = []
    for start in range(0, len(files), _BATCH):
        batch = [Item(file, 0, partial(Image.open, folder / file)) for file in files[start : start + _BATCH]]
        images, rows, unreadable = decode(batch, backbone.spec.preprocessing)
        left_out = together(left_out, unreadable)
        if len(images):
            names = [batch[row].name for row in rows]
            candidates += _candidates(names, _probabilities(network, images, compute), checkpoint.labels)
        if on_image:
            on_image(start + len(batch), len(files))
    if not candidates:
        raise BadData(" ".join([f"{folder} holds no readable images.", *sentences(left_out)]))
    skipped = tuple(name for names in left_out.values() for name in names)
    return Ranking(tuple(sorted(candidates, key=lambda c: (c.margin, c.file))), skipped, sentences(left_out))


def write_candidates(candidates: Sequence[UnlabelledImage], path: Path) -> None:
    """Write a CSV file with the columns file, margin, predicted. Raises CannotWrite."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("file", "margin", "predicted"))
            table.writerows((c.file, f"{c.margin:.6f}", c.predicted) for c in candidates)
        aside.replace(path)
    except OSError as error:
        raise CannotWrite(path, str(error)) from error
    finally:
        aside.unlink(missing_ok=True)


@torch.inference_mode()
def _probabilities(network: nn.Module, images: NDArray[np.uint8], compute: Compute) -> NDArray[np.float32]:
    with compute.autocast():
        scores = network(compute.put(torch.from_numpy(images)))
    found: NDArray[np.float32] = torch.softmax(scores.float(), 1).cpu().numpy()
    return found


def _candidates(files: Sequence[str], probabilities: NDArray[np.float32], labels: Sequence[str]) -> Iterator[UnlabelledImage]:
    best = probabilities.argmax(1)
    for file, margin, target in zip(files, margins(probabilities), best, strict=True):
        yield UnlabelledImage(file, float(margin), labels[int(target)])
