"""Transfer from teachers into a small student on the digits: Adaptive Feature Transfer beside distillation and plain transfer.

Two teachers of one architecture see the same images: "digits" was pretrained on what they show, "noise" on random labels. The
student, of another architecture or size, was pretrained briefly on something else (how far a digit is turned) and has few images
of the task. Nothing is chosen by looking at test images: every method is shown with every beta. `python -m benchmarks.studies.transfer`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from contract.preprocessing import Preprocessing
from tuning.data.digits import digit_task
from tuning.data.labelled import Split, TaskData
from tuning.network.backbone import Backbone
from tuning.training.fit import FitOptions, evaluate, pretrain
from tuning.transfer.compare import Spread, TransferRun, mean_weights, run_methods, spread
from tuning.transfer.features import compute_features
from tuning.transfer.training import TransferOptions
from tuning.transfer.transfer import METHODS, Method
from tuning.transfer.weights import TeacherWeights


@dataclass(frozen=True)
class StudyNetwork:
    """A network to pretrain: a timm name and its options, and for how long."""

    name: str
    options: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class TransferSetting:
    """What is measured. train_images: of the task, for student and teachers' features; the teachers had 897 others."""

    task: str = "size-class"
    train_images: int = 300
    image_size: int = 32
    teacher: StudyNetwork = StudyNetwork("resnet18", {"channels": [24, 48, 96, 192], "stem_width": 24}, 12)
    student: StudyNetwork = StudyNetwork("resnet18", {"channels": [8, 16, 32, 32], "stem_width": 8}, 3)
    betas: tuple[float, ...] = (3.0, 10.0)
    seeds: int = 5
    options: TransferOptions = TransferOptions(steps=300, lr=1e-3, batch_size=60)  # noqa: RUF009


@dataclass(frozen=True)
class Outcome:
    """One method with one beta over the seeds; accuracies in [0, 1]. weights: by teacher, mean over seeds, of aft only."""

    method: Method
    beta: float
    test_accuracy: Spread
    train_accuracy: Spread
    weights: Mapping[str, TeacherWeights]


@dataclass(frozen=True)
class TransferStudy:
    """What came out, and how good the useful teacher is at its own task (digits)."""

    setting: TransferSetting
    teacher_accuracy: float
    outcomes: tuple[Outcome, ...]


def measure(setting: TransferSetting | None = None) -> TransferStudy:
    """Pretrain teachers and student, then train the student with every method, beta and seed."""
    setting = setting or TransferSetting()
    size = setting.image_size
    preprocessing = Preprocessing(size, size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    source = digit_task("digits", preprocessing)
    teachers = {
        "digits": _pretrained(setting.teacher, source, preprocessing, seed=1),
        "noise": _pretrained(setting.teacher, _mislabelled(source), preprocessing, seed=2),
    }
    student = _pretrained(setting.student, digit_task("angle", preprocessing), preprocessing, seed=3)
    task = digit_task(setting.task, preprocessing)
    data = replace(task, train=_first(task.train, setting.train_images))
    features = compute_features(teachers, lambda _: data, data)

    def outcome(method: Method, beta: float) -> Outcome:
        options = replace(setting.options, beta=beta)
        return _outcome(method, beta, [run for run, _ in run_methods(student, features, data, (method,), options, setting.seeds)])

    outcomes = [outcome("plain", 0.0)]
    outcomes += [outcome(method, beta) for method in METHODS if method != "plain" for beta in setting.betas]
    return TransferStudy(setting, evaluate(teachers["digits"].network, source.test, preprocessing), tuple(outcomes))


def describe(measured: TransferStudy) -> str:
    """Return the accuracies as a table, and what aft thought of the teachers."""
    setting = measured.setting
    lines = [
        f"{setting.task}, {setting.train_images} training images, {setting.seeds} seeds, {setting.options.steps} steps; "
        f"the teacher of digits knows {measured.teacher_accuracy:.1%} of them",
        f"{'method':14}{'beta':>6}{'test accuracy':>18}{'training':>10}   learned weights: mean (share at the start -> share)",
    ]
    for one in measured.outcomes:
        weights = ", ".join(f"{name} {w.mean:.2f} ({w.share_at_start:.0%} -> {w.share:.0%})" for name, w in one.weights.items())
        accuracy = f"{100 * one.test_accuracy.mean:.1f} ± {100 * one.test_accuracy.deviation:.1f} %"
        lines.append(f"{one.method:14}{one.beta:6.0f}{accuracy:>18}{one.train_accuracy.mean:>10.1%}   {weights}")
    return "\n".join(lines)


def _outcome(method: Method, beta: float, runs: Sequence[TransferRun]) -> Outcome:
    test, train = spread([run.test_accuracy for run in runs]), spread([run.train_accuracy for run in runs])
    return Outcome(method, beta, test, train, mean_weights(runs))


def _pretrained(network: StudyNetwork, data: TaskData, preprocessing: Preprocessing, seed: int) -> Backbone:
    options = FitOptions(epochs=network.epochs, lr=2e-3, batch_size=32, seed=seed)
    return pretrain(network.name, data, preprocessing, options, network_options=network.options)


def _mislabelled(data: TaskData) -> TaskData:
    """Return the data with its training labels dealt anew."""
    targets = np.random.default_rng(0).permutation(data.train.targets)
    return replace(data, name=f"{data.name} with random labels", train=Split(data.train.images, targets))


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.targets[:count])


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the methods of transfer on a task of the digits, and print a table."""
    default = TransferSetting()
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--task", default=default.task, help="a task of tuning.data.digits")
    parser.add_argument("--train-images", type=int, default=default.train_images)
    parser.add_argument("--steps", type=int, default=default.options.steps)
    parser.add_argument("--seeds", type=int, default=default.seeds)
    parser.add_argument("--balanced", action="store_true", help="bring the teachers' features to one scale for aft")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    options = replace(default.options, steps=given.steps, balanced=given.balanced)
    setting = replace(default, task=given.task, train_images=given.train_images, seeds=given.seeds, options=options)
    measured = measure(setting)
    print(json.dumps(asdict(measured), indent=2) if given.json else describe(measured))


if __name__ == "__main__":
    main()
