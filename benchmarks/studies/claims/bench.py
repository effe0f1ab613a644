"""What units are carried out with: networks, tasks, and how they are trained. Each is loaded once in a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.studies.claims.ledgers import Ledgers
from benchmarks.studies.claims.tasks import draw, load_task
from benchmarks.studies.claims.unit import Entry, Settings, Unit
from contract.preprocessing import Preprocessing
from tuning.data.folds import Fold, Rows, make_folds
from tuning.data.labelled import TaskData
from tuning.errors import TuningError
from tuning.network.backbone import Backbone, load_backbone
from tuning.training.loop import FitOptions

LoadTask = Callable[[str, Preprocessing, Path | None], TaskData]
LoadBackbone = Callable[[str, int], Backbone]


class NotDone(TuningError):
    """A unit needs what another one gives."""

    def __init__(self, unit: Unit, needed: Unit) -> None:
        super().__init__(f"{unit.words} needs {needed.words}, which is not done.")


def _load(name: str, image_size: int) -> Backbone:
    return load_backbone(name, image_size=image_size)


@dataclass
class Bench:
    """ledgers: what was done. data_folder: of pictures. workers: trainings side by side. load_task, load_network: in tests, tiny ones."""

    ledgers: Ledgers
    data_folder: Path | None = None
    workers: int = 1
    load_task: LoadTask = load_task
    load_network: LoadBackbone = _load
    _tasks: dict[tuple[str, Preprocessing], TaskData] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """What all units have in common."""
        return self.ledgers.settings

    @cached_property
    def backbone(self) -> Backbone:
        """The network that tasks are tuned on."""
        return self.load_network(self.settings.backbone, self.settings.image_size)

    def whole(self, task: str, preprocessing: Preprocessing | None = None) -> TaskData:
        """Return a task with all its pictures, by default as the backbone takes them."""
        preprocessing = preprocessing or self.backbone.spec.preprocessing
        key = (task, preprocessing)
        if key not in self._tasks:
            for other in [other for other in self._tasks if other[0] != task]:  # units come task by task
                del self._tasks[other]
            self._tasks[key] = self.load_task(task, preprocessing, self.data_folder)
        return self._tasks[key]

    def drawn(self, unit: Unit) -> TaskData:
        """Return the unit's task with as many pictures to learn from as the unit says."""
        return self.drawn_for(unit, self.backbone.spec.preprocessing)

    def drawn_for(self, unit: Unit, preprocessing: Preprocessing) -> TaskData:
        """Return the same for a network that takes pictures in another way."""
        return draw(self.whole(unit.task, preprocessing), unit.images, unit.seed)

    def folds(self, data: TaskData, seed: int) -> tuple[Fold, ...]:
        """Return the folds of drawn data, fewer where a class has fewer pictures."""
        smallest = min(int((data.train.targets == target).sum()) for target in set(data.train.targets.tolist()))
        count = max(2, min(self.settings.folds, smallest))
        return make_folds(data.train.targets, count, seed, data.validation, data.labels)

    def fit_options(self, seed: int) -> FitOptions:
        """Return how trainings of one seed are done, on the CPU, so that one machine says what another does."""
        settings = self.settings
        return FitOptions(settings.epochs, settings.lr, batch_size=settings.batch_size, seed=seed, device="cpu")

    def need(self, unit: Unit, needed: Unit) -> Entry:
        """Return what another unit gave. Raises NotDone."""
        entry = self.ledgers.find(needed)
        if entry is None:
            raise NotDone(unit, needed)
        return entry


def learnt_rows(data: TaskData) -> Rows | None:
    """Return the rows that final trainings learn from: all but those of a fixed validation split; None for all."""
    folds = make_folds(data.train.targets, 2, 0, data.validation) if data.validation is not None else ()
    return folds[0].train if folds else None
