"""Steps 1 and 2 of the demo: a backbone, and the tasks that are tuned on it, each beside its baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.dtypes import Array
from contract.preprocessing import Preprocessing
from espalier.console import say
from espalier.demo.tasks import DemoTask, TaskSet
from tuning.data.digits import digit_task
from tuning.errors import CannotWrite, NoUserCacheFolder, TuningError
from tuning.network.backbone import Backbone, load_backbone, save_backbone
from tuning.network.checkpoint import TaskCheckpoint, load_task, save_task
from tuning.network.files import cache_folder
from tuning.training.fit import FitOptions, Subset, fit, pretrain

# A narrow ResNet-18 at 64 pixels: 32 million MACs, as much as two minutes on two cores can train for all tasks and baselines.
_NETWORK = "resnet18"
_CHANNELS = (24, 48, 96, 192)
_IMAGE_SIZE = 64
_PRETRAINING = FitOptions(epochs=8, lr=2e-3, batch_size=32, seed=0)
_BATCH_SIZE = 32  # of every method, as are epochs and data

_OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TunedTask:
    """A tuned task and the test accuracies of the three ways to get it, all trained with the same data and epochs."""

    task: DemoTask
    checkpoint: TaskCheckpoint
    file: Path
    probe: float
    subtuning: float
    full: float


def get_backbone(name: str | None, checkpoint: Path | None, image_size: int | None, progress: _OnProgress) -> Backbone:
    """Return the named backbone, or the demo's own: pretrained on upright digits once, then kept in the cache folder.

    image_size: pixels of the named one's input; None: its own.
    """
    if name is not None:
        return load_backbone(name, checkpoint, image_size=image_size)
    cached = _cached()
    if cached is not None and cached.is_file():
        try:
            return load_backbone(cached)
        except TuningError:
            cached.unlink()  # damaged: make it again
    preprocessing = Preprocessing(_IMAGE_SIZE, _IMAGE_SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    data = digit_task("digits", preprocessing)
    backbone = pretrain(
        _NETWORK,
        data,
        preprocessing,
        _PRETRAINING,
        network_options={"channels": list(_CHANNELS)},
        on_epoch=lambda done, total: progress("Pretraining the backbone on upright digits", done, total),
    )
    if cached is not None:
        _keep(backbone, cached)
    return backbone


def _cached() -> Path | None:
    """Return the file of the demo's own backbone; None, and a line that says so, where nothing can be kept."""
    try:
        return cache_folder() / f"digits-{_settings_key()}.safetensors"
    except NoUserCacheFolder as error:
        say(f"The backbone is not kept for the next time. {error}")
        return None


def _keep(backbone: Backbone, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_backbone(backbone, file)
    except (OSError, CannotWrite) as error:
        say(f"The backbone is not kept for the next time ({error}).")


def tune_tasks(backbone: Backbone, chosen: TaskSet, folder: Path, epochs: int, progress: _OnProgress) -> list[TunedTask]:
    """Tune every task of the set on `backbone` and write the checkpoints into `folder`."""
    return [_tune_one(task, chosen, backbone, folder / f"{task.name}.safetensors", epochs, progress) for task in chosen.tasks]


def _tune_one(task: DemoTask, chosen: TaskSet, backbone: Backbone, file: Path, epochs: int, progress: _OnProgress) -> TunedTask:
    data = chosen.load(task.data, backbone.spec.preprocessing)

    def run(method: str, subset: Subset) -> TaskCheckpoint:
        bar = f"Tuning {task.name}: {method}"
        options = FitOptions(epochs=epochs, lr=chosen.lr[method], batch_size=_BATCH_SIZE, seed=0)
        everything = method == "full finetuning"
        return fit(
            backbone, data, subset, options, all_weights=everything, on_epoch=lambda done, total: progress(bar, done, total)
        )

    probe = run("linear probe", "none")
    subset = task.subset(backbone.blocks)
    tuned = run("SubTuning", subset) if subset else probe
    full = run("full finetuning", "all")
    save_task(tuned, file)
    return TunedTask(task, load_task(file), file, _accuracy(probe), _accuracy(tuned), _accuracy(full))


def sample_images(backbone: Backbone, chosen: TaskSet, count: int) -> Array:
    """Return test images of the set's sample, uint8 of shape (count, height, width, 3)."""
    return chosen.load(chosen.sample[0], backbone.spec.preprocessing).test.images[:count]


def _settings_key() -> str:
    return hashlib.sha256(repr((_NETWORK, _CHANNELS, _IMAGE_SIZE, _PRETRAINING)).encode()).hexdigest()[:12]


def _accuracy(checkpoint: TaskCheckpoint) -> float:
    return checkpoint.scores["test_accuracy"]
