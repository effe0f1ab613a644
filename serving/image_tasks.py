"""What images are to tasks: which tasks take them, the rows that they become, and the classes that come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.classify import best, label_of, softmax
from serving.engines.base import Array
from serving.errors import InvalidRequest, NotAnImage, NoTask, UnknownTask
from serving.messages import ScoredLabel
from serving.preprocessing import Preprocessing
from serving.repository.model import Task, TensorSpec

AnyImage = Image.Image | NDArray[np.uint8]
Group = tuple[tuple[TensorSpec, ...], Preprocessing]


def group_tasks(known: Mapping[str, Task], names: Sequence[str], top_k: int) -> Mapping[Group, list[str]]:
    """Return the tasks `names` by what they take: those of a group see the same array, and share what they have in common.

    Raises NoTask, UnknownTask, InvalidRequest.
    """
    if top_k < 1:
        raise InvalidRequest(f"top_k is {top_k}; ask for at least 1 class.")
    if not names:
        raise NoTask(known)
    groups: dict[Group, list[str]] = {}
    for name in dict.fromkeys(names):
        if name not in known:
            raise UnknownTask(name, known)
        task = known[name]
        groups.setdefault((task.inputs, _image_preprocessing(task)), []).append(name)
    return groups


def as_images(images: Sequence[Any]) -> list[Image.Image]:
    """Return PIL images, from such and from uint8 arrays of shape (height, width, 3). Raises NotAnImage, InvalidRequest for none."""
    if len(images) == 0:
        raise InvalidRequest("No image was given; give at least one.")
    return [_as_image(image) for image in images]


def stack(preprocessing: Preprocessing, images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Return the images as a task's network takes them: shape (n, height, width, 3)."""
    return np.stack([preprocessing(image) for image in images])


def table(task: Task, logits: Array, top_k: int) -> tuple[tuple[ScoredLabel, ...], ...]:
    """Return the `top_k` best classes of each row of `logits`, of shape (n, classes)."""
    scores = softmax(logits)
    return tuple(
        tuple(ScoredLabel(label_of(task.labels, int(index)), float(row[index])) for index in indices)
        for row, indices in zip(scores, best(logits, top_k), strict=True)
    )


def _image_preprocessing(task: Task) -> Preprocessing:
    """Return how `task` prepares an image. Raises InvalidRequest for tasks that take something else, or give no classes."""
    how = task.preprocessing
    if how is None or [(spec.dtype, spec.shape) for spec in task.inputs] != [("UINT8", (how.height, how.width, 3))]:
        raise InvalidRequest(f"Task {task.name!r} takes no images; send it tensors through v2/models/{task.name}/infer.")
    if len(task.outputs) != 1 or len(task.outputs[0].shape) != 1:
        raise InvalidRequest(f"Task {task.name!r} gives no classes; ask for its values through v2/models/{task.name}/infer.")
    return how


def _as_image(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise NotAnImage(f"An image is a uint8 array of shape (height, width, 3), not {array.dtype} {array.shape}.")
    return Image.fromarray(array)
