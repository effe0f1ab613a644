"""How much faster one training is, by the block that it tunes: `python -m benchmarks.studies.training_speed`.

Straightforward is as in benchmarks.studies.search_speed. Ours trains on features that are there already, as in every epoch, fold and
candidate but the first; the last column says what computing them costs. It runs as many trainings side by side as there are workers, as a
search does; seconds are divided by their number. Weights are random: times do not depend on them. Repetitions take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.harness.machine import describe_machine
from benchmarks.models.synthetic import random_backbone
from benchmarks.studies.search_speed import Straightforward
from tuning.data.digits import digit_task
from tuning.data.folds import Fold
from tuning.data.labelled import Split, TaskData
from tuning.network.backbone import Backbone
from tuning.search.score import Subset
from tuning.search.workers import find_workers, run_all
from tuning.training.loop import FitOptions
from tuning.training.methods import subtuning
from tuning.training.trainer import Trainer


@dataclass(frozen=True)
class _SubsetSpeed:
    """Seconds of one training that tunes `subset`, and of computing the features that it starts from."""

    subset: Subset
    straightforward_s: float
    features_s: float
    ours_s: float

    @property
    def ratio(self) -> float:
        """Return how many times as fast ours is, features left aside."""
        return self.straightforward_s / self.ours_s


def measure(
    backbone: Backbone, data: TaskData, options: FitOptions, subsets: Sequence[Subset], repetitions: int, workers: int
) -> list[_SubsetSpeed]:
    """Return a line for each of `subsets`, trained on all training images of `data`."""
    rows = np.arange(len(data.train))
    plain = Straightforward(backbone, data, [Fold(rows, rows[:2])], options)
    trainer = Trainer(backbone, data, options)
    found = []
    for subset in subsets:
        prepared = trainer.prepare(subtuning(subset, options.epochs), 0)
        started = time.perf_counter()
        trainer.sample(prepared.stages[0], 1)
        trainer.run(
            replace(prepared, method=subtuning(subset, 1)), rows[:2], 0
        )  # features are computed at first use, for all images
        features = time.perf_counter() - started
        slow, fast = [], []
        for _ in range(repetitions):
            started = time.perf_counter()
            plain.train(subset, plain.folds[0])
            slow.append(time.perf_counter() - started)
            started = time.perf_counter()
            run_all(range(workers), lambda job: trainer.run(prepared, rows, 0), lambda result: None, workers, threading.Event())  # noqa: B023
            fast.append((time.perf_counter() - started) / workers)
        found.append(_SubsetSpeed(subset, statistics.median(slow), features, statistics.median(fast)))
    return found


def cut(data: TaskData, images: int) -> TaskData:
    """Return `data` with its first `images` training images and two test images."""
    train, test = data.train, data.test
    return replace(
        data, train=Split(train.images[:images], train.targets[:images]), test=Split(test.images[:2], test.targets[:2])
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--every", type=int, default=3, help="every n-th block")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    backbone = random_backbone(given.network, given.image_size)
    data = cut(digit_task("inverted", backbone.spec.preprocessing), given.images)
    options = FitOptions(epochs=given.epochs, batch_size=given.batch_size)
    subsets: list[Subset] = [(), *((block,) for block in backbone.blocks[:: given.every])]
    lines = measure(backbone, data, options, subsets, given.repetitions, find_workers("cpu"))
    print(f"{given.network} at {given.image_size} pixels, {given.images} images, {given.epochs} epochs; {describe_machine()}")
    print(f"{'tuned':<20}{'straightforward':>18}{'ours':>10}{'ratio':>8}{'features, once':>18}")
    for line in lines:
        name = " + ".join(line.subset) or "head alone"
        print(f"{name:<20}{line.straightforward_s:>16.2f} s{line.ours_s:>8.2f} s{line.ratio:>8.1f}{line.features_s:>16.2f} s")
    if given.json:
        given.json.write_text(json.dumps({"machine": describe_machine(), "lines": [asdict(line) for line in lines]}, indent=1))


if __name__ == "__main__":
    main()
