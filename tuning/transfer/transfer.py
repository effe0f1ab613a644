"""From teachers into a student: Adaptive Feature Transfer (arXiv 2406.07337), and what it is compared with.

aft: all of the student's weights are trained from its pretrained ones on cross entropy + beta * distance, the distance being that
of kernels, with learned weights of the teachers' dimensions. distillation: the same, the distance being the error of a learned map from
the student's features to the teachers' (both: tuning.transfer.guides). plain: cross entropy alone.
The teachers are needed in training only; what comes out is a task of the student like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tuning.data.labelled import Split, TaskData, require_classes
from tuning.errors import BadData, BadOptions
from tuning.network.backbone import Backbone
from tuning.network.blocks import replace_head
from tuning.network.checkpoint import Provenance, TaskCheckpoint
from tuning.network.libraries import versions
from tuning.network.normalise import Normalise
from tuning.training.fit import evaluate
from tuning.training.trainer import check_data
from tuning.transfer.features import DataFor, TeacherFeatures, balance, compute_features, find_single_head, run_with_features
from tuning.transfer.guides import FeatureRegression, KernelMatch
from tuning.transfer.training import Guidance, OnStep, Student, TransferOptions, train_guided
from tuning.transfer.weights import TeacherWeights, summarise_weights

Method = Literal["aft", "plain", "distillation"]
METHODS: tuple[Method, ...] = get_args(Method)

_NAMES = {"aft": "adaptive feature transfer", "plain": "plain transfer", "distillation": "feature distillation"}
_LEAST_IMAGES = 3


@dataclass(frozen=True, eq=False)
class Transferred:
    """checkpoint: the trained student, all its weights. teacher_weights: what `aft` learned, by teacher; else empty."""

    checkpoint: TaskCheckpoint
    teacher_weights: Mapping[str, TeacherWeights]


def transfer(
    student: Backbone,
    teachers: Mapping[str, Backbone],
    data_for: DataFor,
    method: Method = "aft",
    options: TransferOptions | None = None,
    *,
    on_step: OnStep | None = None,
) -> Transferred:
    """Train the student with its teachers, by name, on the data that `data_for` gives for each network's preprocessing.

    Student and teachers are left as they were. The same arguments give the same weights (on one machine, with one number of
    threads). Raises BadData, BadOptions, NonFiniteLoss, UnsupportedNetwork.
    """
    data = data_for(student.spec.preprocessing)
    features = {} if method == "plain" else compute_features(teachers, data_for, data)
    return transfer_features(student, features, data, method, options, on_step=on_step)


def transfer_features(
    student: Backbone,
    features: Mapping[str, TeacherFeatures],
    data: TaskData,
    method: Method = "aft",
    options: TransferOptions | None = None,
    *,
    on_step: OnStep | None = None,
) -> Transferred:
    """Do as `transfer` does, with the teachers' features at hand (compute_features): several runs compute them once.

    data: made with the student's preprocessing. The features are not looked at by "plain".
    """
    options = options or TransferOptions()
    require_classes(data.kind, "Transfer")
    _check(student, features, data, method)
    pupil = _prepared(student, len(data.labels), options.seed)
    images, targets = torch.from_numpy(data.train.images), torch.from_numpy(data.train.targets)
    balanced = options.balanced or method == "distillation"
    rows = {name: balance(teacher.rows) if balanced else teacher.rows for name, teacher in features.items()}
    with torch.random.fork_rng(devices=[]):  # for the map of distillation, dropout and the like
        torch.manual_seed(options.seed)
        guidance = _guidance(method, pupil, images, rows, options)
        train_guided(pupil, images, targets, guidance, options, on_step)
    learned = {}
    if guidance is not None and isinstance(guidance.module, KernelMatch):
        learned = summarise_weights(guidance.module.weights, rows)
    return Transferred(
        _checkpoint(student, pupil.network.eval(), data, options, _provenance(features, data, method, options)), learned
    )


def _check(student: Backbone, features: Mapping[str, TeacherFeatures], data: TaskData, method: Method) -> None:
    if method not in METHODS:
        raise BadOptions(f"The method must be one of {', '.join(METHODS)}, not {method!r}.")
    if method != "plain" and not features:
        raise BadOptions(f"The method {method} learns from teachers; give at least one.")
    check_data(data, student.spec.preprocessing, "student", _LEAST_IMAGES)
    for name, teacher in features.items():
        if teacher.rows.ndim != 2 or len(teacher.rows) != len(data.train):
            raise BadData(
                f"The features of the teacher {name!r} have shape {tuple(teacher.rows.shape)}; "
                f"one row for each of the {len(data.train)} training images is needed."
            )


def _prepared(student: Backbone, classes: int, seed: int) -> Student:
    """Return a copy of the student with a new head, in training mode, gradients on for everything."""
    head = find_single_head(student.network, "the student")
    network = copy.deepcopy(student.network)
    replace_head(network, classes, seed)
    return Student(network.requires_grad_(True).train(), head, Normalise(student.spec.preprocessing))


def _guidance(
    method: Method, pupil: Student, images: Tensor, rows: Mapping[str, Tensor], options: TransferOptions
) -> Guidance | None:
    if method == "plain":
        return None
    psi = torch.cat(list(rows.values()), dim=1)
    if method == "aft":
        return Guidance(KernelMatch(psi.shape[1]), psi, options.weight_lr)
    return Guidance(FeatureRegression(_count_features(pupil, images), psi.shape[1]), psi, options.lr)


@torch.no_grad()
def _count_features(pupil: Student, images: Tensor) -> int:
    """Return how many features the student has; in eval mode, so that its statistics stay."""
    pupil.network.eval()
    _, phi = run_with_features(pupil.network, pupil.head, pupil.normalise(images[:1]))
    pupil.network.train()
    return phi.shape[1]


def _checkpoint(
    student: Backbone, network: nn.Module, data: TaskData, options: TransferOptions, provenance: Provenance
) -> TaskCheckpoint:
    def accuracy(split: Split) -> float:
        return evaluate(network, split, student.spec.preprocessing)

    return TaskCheckpoint(
        tensors={name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
        backbone=student.spec,
        subset=student.blocks,
        labels=data.labels,
        scores={"test_accuracy": accuracy(data.test), "train_accuracy": accuracy(data.train)},
        seed=options.seed,
        provenance=provenance,
        all_weights=True,
    )


def _provenance(features: Mapping[str, TeacherFeatures], data: TaskData, method: Method, options: TransferOptions) -> Provenance:
    guided: dict[str, str | int | float | bool] = {}
    if method != "plain":
        guided["beta"] = options.beta
        for name, features_of in features.items():
            spec = features_of.teacher
            guided[f"teacher {name}"] = f"{spec.library}/{spec.name}, {spec.weights}, {spec.weights_sha256[:12]}"
    if method == "aft":
        guided |= {"weight_lr": options.weight_lr, "balanced": options.balanced}
    return {
        "method": _NAMES[method],
        "data": data.name,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "steps": options.steps,
        "lr": options.lr,
        "batch_size": options.batch_size,
        **guided,
        **versions(),
    }
