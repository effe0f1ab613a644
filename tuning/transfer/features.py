"""What a network knows about an image: the input of its head. Taken from a student while it trains, from teachers once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from tuning.data.labelled import TaskData
from tuning.errors import BadData, UnsupportedNetwork
from tuning.network.backbone import Backbone, BackboneSpec
from tuning.network.blocks import find_head
from tuning.network.normalise import Normalise

DataFor = Callable[[Preprocessing], TaskData]  # the same images in the same order, prepared for one network or another

_BATCH_ROWS = 128
_SPREAD_FLOOR = 1e-6  # of a teacher whose features do not vary


@dataclass(frozen=True, eq=False)
class TeacherFeatures:
    """What one teacher says of the training images. rows: float32 (n, dimensions), row i of training image i."""

    teacher: BackboneSpec
    rows: Tensor


def find_single_head(network: nn.Module, name: str) -> str:
    """Return the module path of the only head. Raises UnsupportedNetwork (naming the network `name`) for none or several."""
    heads = find_head(network)
    if len(heads) != 1:
        found = f"{len(heads)} ({', '.join(heads)})" if heads else "none"
        raise UnsupportedNetwork(f"Transfer takes the features before the one head of a network, but {name} has {found}.")
    return heads[0]


def run_with_features(network: nn.Module, head: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (logits, features): what `network` says of normalised `images`, and the input of its module `head`.

    images: (n, 3, height, width). logits: (n, classes). features: (n, dimensions), averaged over positions where the head is a
    convolution over several; dropout before the head has been applied. Raises UnsupportedNetwork for features of another shape.
    """
    seen: list[Tensor] = []
    hook = network.get_submodule(head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = network(images)
    finally:
        hook.remove()
    if not isinstance(logits, Tensor):
        raise UnsupportedNetwork(
            "In training this network returns more than class scores (auxiliary heads, say); build it without."
        )
    if len(seen) != 1 or seen[0].ndim not in (2, 4) or len(seen[0]) != len(images):
        raise UnsupportedNetwork(f"The head {head!r} does not take one vector of features per image.")
    return logits, seen[0].flatten(2).mean(2) if seen[0].ndim == 4 else seen[0]


def compute_features(teachers: Mapping[str, Backbone], data_for: DataFor, student_data: TaskData) -> dict[str, TeacherFeatures]:
    """Return the features of the training images by each teacher, computed once in eval mode; the teachers are left as they were.

    data_for: gives the task's data for a teacher's preprocessing. Its labels and targets must be those of `student_data`.
    Raises BadData when they are not, UnsupportedNetwork.
    """
    features = {}
    for name, teacher in teachers.items():
        data = data_for(teacher.spec.preprocessing)
        _check_same_images(name, student_data, data)
        features[name] = TeacherFeatures(teacher.spec, _compute(name, teacher, data))
    return features


def balance(rows: Tensor) -> Tensor:
    """Return the features (n, d) of one teacher, centred and divided by one number, so that their mean square is 1.

    What is large within a teacher stays large; teachers become alike in scale. The kernel of a single teacher stays as it is.
    """
    centred = rows - rows.mean(0)
    return centred / centred.square().mean().sqrt().clamp(min=_SPREAD_FLOOR)


@torch.no_grad()
def _compute(name: str, teacher: Backbone, data: TaskData) -> Tensor:
    head, normalise = find_single_head(teacher.network, f"the teacher {name!r}"), Normalise(teacher.spec.preprocessing)
    images = torch.from_numpy(data.train.images)
    return torch.cat([run_with_features(teacher.network, head, normalise(rows))[1] for rows in torch.split(images, _BATCH_ROWS)])


def _check_same_images(name: str, expected: TaskData, given: TaskData) -> None:
    same = expected.train.targets.shape == given.train.targets.shape and bool(
        (expected.train.targets == given.train.targets).all()
    )
    if expected.labels != given.labels or not same:
        raise BadData(
            f"The data for the teacher {name!r} have other labels or targets than the student's; "
            "give both the same images in the same order."
        )
