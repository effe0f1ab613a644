"""What other precisions cost a network that has learnt something: tasks on handwritten digits, trained here in seconds.

A small ResNet-18 is pretrained on 897 of scikit-learn's digits at 32 x 32 pixels; tasks tune its last stage on 400 others. All are tested
on the same 500 images, and calibrated with images that they were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.framework.errors import PrecisionUnavailable
from benchmarks.framework.options import FP32, Options, Scale
from benchmarks.latency.precision.kernels import MAKE, tried
from benchmarks.models.accuracy import answers
from benchmarks.models.families import network_cache, networks
from benchmarks.repository.engines import EngineChoice
from contract.dtypes import Array
from contract.preprocessing import Preprocessing
from contract.repository import Repository
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources
from exporter.torch.export import BackboneExporter
from serving.engines.base import Engine
from tuning.data.digits import digit_task
from tuning.data.labelled import TaskData
from tuning.network.backbone import Backbone
from tuning.training.fit import FitOptions, fit, pretrain

ABOUT = " ".join((__doc__ or "").split("\n\n")[1].split())
_HOW = Preprocessing(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")


@dataclass(frozen=True)
class PrecisionTraining:
    """How much is trained. channels, blocks: of the ResNet's stages; tasks: of `tuning.data.digits`; calibration: how many images."""

    epochs: int
    channels: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    tasks: tuple[str, ...] = ("inverted", "noisy", "parity", "angle")
    calibration: int = 64


@dataclass(frozen=True)
class Learnt:
    """Shares of `images` test images that a task has right, and for which it gives the same answer as in fp32."""

    task: str
    precision: str
    accuracy: float
    agreement: float
    images: int


def pretrained(training: PrecisionTraining) -> Backbone:
    """Return the network, trained on the digits themselves."""
    network = {"channels": training.channels, "layers": training.blocks, "stem_width": training.channels[0]}
    return pretrain("resnet18", digit_task("digits", _HOW), _HOW, _options(training), network_options=network)


def _measure_trained(
    exporter: BackboneExporter,
    backbone: Backbone,
    training: PrecisionTraining,
    precisions: Sequence[str],
    folder: Path,
    threads: int,
    engines: Sequence[EngineChoice],
) -> list[Learnt]:
    """Tune and export tasks of `backbone` into `folder`, and test each in each of `precisions`, fp32 first.

    engines: that run the segments of fp32, too. Raises PrecisionUnavailable.
    """
    data = {name: digit_task(name, backbone.spec.preprocessing) for name in training.tasks}
    tuned = {name: fit(backbone, task, ("layer4.*",), _options(training)) for name, task in data.items()}
    loaders = {name: partial(exporter.export_task, checkpoint) for name, checkpoint in tuned.items()}
    repository = export_repository(Sources(loaders, exporter.export_backbone), ExportOptions(folder / FP32)).repository
    rows = np.concatenate([task.train.images[: training.calibration // len(data)] for task in data.values()])
    found: list[Learnt] = []
    expected: dict[str, Array] = {}
    for precision in precisions:
        with tried(precision):
            made = repository if precision == FP32 else MAKE[precision](repository, rows, folder / precision)
            chosen = {name: _classes(made, name, task, threads) for name, task in data.items()}
        expected = expected or chosen
        found += [_judged(name, precision, chosen[name], expected[name], task) for name, task in data.items()]
    for engine in engines:
        for name, task in data.items():
            classes = _classes(repository, name, task, threads, engine.make(repository, threads, folder / engine.name, 1))
            found.append(_judged(name, engine.name, classes, expected[name], task))
    return found


def _judged(name: str, precision: str, classes: Array, expected: Array, task: TaskData) -> Learnt:
    accuracy, agreement = (float(np.mean(classes == of)) for of in (task.test.targets, expected))
    return Learnt(name, precision, accuracy, agreement, len(task.test.targets))


def learn(options: Options, engines: Sequence[EngineChoice] = ()) -> tuple[list[Learnt], list[str]]:
    """Return what `_measure_trained` finds in the precisions of `options` and by other `engines`, and why it found nothing.

    It is not asked for fp32 alone.
    """
    if options.precisions == (FP32,) and not engines:
        return [], []
    options.say("Training tasks on handwritten digits")
    training = options.pick(PrecisionTraining(12), PrecisionTraining(6), PrecisionTraining(1, tasks=("parity",)))
    if options.scale is Scale.tiny:  # tasks are tuned on the network that is there, for tracing another takes seconds
        network = networks(options)[0]
        backbone, exporter = network_cache(options).backbone(network), network_cache(options).exporter(network)
    else:
        backbone = pretrained(training)
        exporter = BackboneExporter(backbone)
    with TemporaryDirectory(dir=options.scratch) as folder:
        try:
            return _measure_trained(exporter, backbone, training, options.precisions, Path(folder), options.cores, engines), []
        except PrecisionUnavailable as error:
            return [], [str(error)]


def _options(training: PrecisionTraining) -> FitOptions:
    return FitOptions(epochs=training.epochs, lr=2e-3, batch_size=32, device="cpu")


def _classes(repository: Repository, name: str, task: TaskData, threads: int, engine: Engine | None = None) -> Array:
    return np.asarray(answers(repository, [name], task.test.images, threads, engine)[name].argmax(axis=1))
