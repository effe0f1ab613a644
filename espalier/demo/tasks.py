"""What the demo tunes: five tasks on pictures that go with a backbone, and how long and how fast each is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from contract.preprocessing import Preprocessing
from contract.references import PACKAGED
from espalier.console import console, say
from tuning.data.digits import digit_task
from tuning.data.emoji import PACKAGES
from tuning.data.labelled import Draw, TaskData, draw_task
from tuning.data.sources import DataOptions, load_data
from tuning.errors import TuningError

_SMALL = 96  # pixels that a backbone of ImageNet's size takes here: emoji have 64, and two cores have minutes
_FEW_EPOCHS = 5
_DRAW = Draw(96, 120)  # images of a task, where it has more


@dataclass(frozen=True)
class DemoTask:
    """A task and where in the network it is tuned.

    data: a name that its set's `load` takes. depth: where the tuned block lies, as a share of the blocks; None for a linear probe.
    """

    name: str
    data: str
    what: str
    depth: float | None

    def subset(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """Return the block to tune in a network with `blocks`."""
        return () if self.depth is None else (blocks[min(round(self.depth * len(blocks)), len(blocks) - 1)],)


@dataclass(frozen=True)
class TaskSet:
    """Tasks on one kind of pictures.

    pictures: what they are, for people. load: a task's data by its name. sample: the name of the data that is asked about, and of a
    file for one of its test images. image_size: of the network's input; None: the backbone's own. epochs: unless others are asked for.
    lr: by method, each a rate that suits it.
    """

    pictures: str
    tasks: tuple[DemoTask, ...]
    load: Callable[[str, Preprocessing], TaskData]
    sample: tuple[str, str]
    image_size: int | None = None
    epochs: int = 8
    lr: Mapping[str, float] = field(default_factory=lambda: {"linear probe": 1e-2, "SubTuning": 5e-3, "full finetuning": 3e-3})


def choose_tasks(backbone: str | None) -> TaskSet:
    """Return the tasks for the backbone of that name: emoji for weights that saw photographs, where they can be had, else digits."""
    if backbone is None or not backbone.startswith(PACKAGED):
        return _DIGITS
    say(f"The tasks are about emoji; where they are not there yet, npm fetches them, {PACKAGES['google'].megabytes} MB.")
    try:
        with console.status("Looking for emoji"):
            _load_emoji(_EMOJI.tasks[0].data, Preprocessing(8, 8))
    except TuningError as error:
        say(f"{error} The tasks are scikit-learn's digits instead.")
        return _FEW_DIGITS
    return _EMOJI


def _load_emoji(name: str, preprocessing: Preprocessing) -> TaskData:
    data = load_data(f"emoji:{name}", preprocessing, DataOptions(download=True))
    return _drawn(data)


def _drawn(data: TaskData) -> TaskData:
    """Return at most as many images as minutes allow."""
    train = _DRAW.train_images if len(data.train) > (_DRAW.train_images or 0) else None
    test = _DRAW.test_images if len(data.test) > (_DRAW.test_images or 0) else None
    return draw_task(data, Draw(train, test))


_DIGITS = TaskSet(
    "scikit-learn's digits",
    (
        DemoTask("parity", "parity", "other labels: even or odd", None),
        DemoTask("size-class", "size-class", "other labels: below 5", None),
        DemoTask("angle", "angle", "other labels: which way up", 6 / 8),
        DemoTask("rotated", "rotated", "input shift: lying digits", 4 / 8),
        DemoTask("inverted", "inverted", "input shift: dark on light", 2 / 8),
    ),
    digit_task,
    ("digits", "digit.png"),
)
_FEW_DIGITS = TaskSet(
    _DIGITS.pictures,
    _DIGITS.tasks,
    lambda name, preprocessing: _drawn(digit_task(name, preprocessing)),
    _DIGITS.sample,
    _SMALL,
    _FEW_EPOCHS,
)
_EMOJI = TaskSet(
    "Google's emoji",
    (
        DemoTask("category", "google/category", "other labels: what it is about", None),
        DemoTask("places", "google/places", "other labels: kinds of places", None),
        DemoTask("animals", "google/animals", "other labels: kinds of animals", 13 / 16),
        DemoTask("food", "google/food", "other labels: kinds of food", 13 / 16),
        DemoTask("skin", "google/skin", "other labels: tone of the skin", 8 / 16),
    ),
    _load_emoji,
    ("google/animals", "emoji.png"),
    _SMALL,
    _FEW_EPOCHS,
)
