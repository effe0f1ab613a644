"""The study on tiny networks and noise."""

from __future__ import annotations

from pathlib import Path

from benchmarks.studies.claims.bench import Bench
from benchmarks.studies.claims.ledgers import Ledgers
from benchmarks.studies.claims.unit import Settings
from contract.preprocessing import Preprocessing
from tests.nets import tiny_data, tiny_vit
from tuning.data.labelled import TaskData
from tuning.network.backbone import Backbone

TINY = Settings(
    backbone="tiny",
    image_size=32,
    epochs=2,
    batch_size=12,
    folds=2,
    lr=1e-2,
    lrs=(1e-2, 1e-3),
    max_blocks=2,
    gain=-1.0,
    teachers=("tiny",),
    student_channels=(4, 4, 4, 4),
    student_size=32,
    student_epochs=1,
    transfer_steps=2,
)


def load_task(name: str, preprocessing: Preprocessing, folder: Path | None) -> TaskData:
    return tiny_data(train=48, test=12, seed=len(name))


def load_network(name: str, image_size: int) -> Backbone:
    return tiny_vit()


def tiny_bench(folder: Path) -> Bench:
    return Bench(Ledgers(folder / "ledgers", TINY, folder / "work"), None, 2, load_task, load_network)
