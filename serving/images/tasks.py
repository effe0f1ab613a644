"""What images are to tasks: which tasks take them, and the rows that they become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidRequest, NoTask, UnknownTask
from contract.preprocessing import Preprocessing
from contract.repository.model import Task, TensorSpec
from serving.errors import DeadlineExceeded, NoImageTask, NotAnImage, TooManyNames, TooManyPixels
from serving.process.threads import to_thread
from serving.validate import SPARE_NAMES

AnyImage = Image.Image | NDArray[np.uint8]
_Group = tuple[tuple[TensorSpec, ...], Preprocessing]
ImageRows = Mapping[Preprocessing, NDArray[np.uint8]]  # what each makes of the images: shape (n, height, width, 3)
CheckRoom = Callable[[int], None]  # raises QueueFull when so many rows may not wait
Prepare = Callable[[Sequence[Preprocessing], CheckRoom], Awaitable[ImageRows]]
MAX_PIXELS = 50_000_000


def names_of_image_tasks(known: Mapping[str, Task]) -> list[str]:
    """Return the tasks that take images. Raises NoImageTask for none."""
    names = [name for name, task in known.items() if refusal_of_images(task) is None]
    if not names:
        raise NoImageTask
    return names


def group_tasks(
    known: Mapping[str, Task], names: Sequence[str], top_k: int, partial: bool = False
) -> tuple[Mapping[_Group, list[str]], dict[str, str]]:
    """Return the tasks `names` by what they take: those of a group see the same array, and share what they have in common.

    partial: tasks that cannot be asked are left out as long as others can; the second of the results says why, by name.
    Raises NoTask, TooManyNames, UnknownTask, InvalidRequest.
    """
    if top_k < 1:
        raise InvalidRequest(f"top_k is {top_k}; ask for at least 1 class.")
    if not names:
        raise NoTask(known)
    if len(names) > len(known) + SPARE_NAMES:
        raise TooManyNames(len(names), len(known), "tasks")
    in_order = [] if known.keys() >= {*names} else sorted(known)
    groups: dict[_Group, list[str]] = {}
    refused: dict[str, InvalidRequest] = {}
    for name in dict.fromkeys(names):
        task = known.get(name)
        reason = UnknownTask(name, in_order) if task is None else refusal_of_images(task)
        if reason is not None:
            refused[name] = reason
        elif task is not None and task.preprocessing is not None:
            groups.setdefault((task.inputs, task.preprocessing), []).append(name)
    if refused and not (partial and groups):
        raise next(iter(refused.values()))
    return groups, {name: str(reason) for name, reason in refused.items()}


def given(images: Sequence[Any]) -> Prepare:
    """Return how PIL images, or uint8 arrays of shape (height, width, 3), become rows; it raises InvalidRequest for none."""

    async def prepare(ways: Sequence[Preprocessing], check_room: CheckRoom) -> ImageRows:
        if len(images) == 0:
            raise InvalidRequest("No image was given; give at least one.")
        pictures = [_as_image(image) for image in images]
        for picture in pictures:
            check_resized(picture.width, picture.height, ways)
        check_room(len(pictures))
        return await to_thread(lambda: {way: np.stack([way(picture) for picture in pictures]) for way in ways})

    return prepare


async def rows_in_time(prepare: Prepare, groups: Iterable[_Group], check_room: CheckRoom, deadline: float | None) -> ImageRows:
    """Return what `prepare` makes of the images for `groups`, each way once. deadline: in time.monotonic seconds, None: none.

    Raises DeadlineExceeded, and what `prepare` raises.
    """
    ways = [*dict.fromkeys(preprocessing for _, preprocessing in groups)]
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            return await prepare(ways, check_room)
    except TimeoutError:
        raise DeadlineExceeded from None


def check_resized(width: int, height: int, ways: Sequence[Preprocessing], max_pixels: int = MAX_PIXELS, where: str = "") -> None:
    """Raise NotAnImage when one of `ways` would make more than `max_pixels` of a picture: the longer side grows with the shorter one."""
    for way in ways:
        wide, high = way.resized_size(width, height)
        if wide * high > max_pixels:
            raise TooManyPixels(
                f"The image{where} has {width} x {height} pixels, which would be resized to {wide} x {high}, more than the limit of "
                f"{max_pixels} pixels; crop it first."
            )


def refusal_of_images(task: Task) -> InvalidRequest | None:
    """Return why `task` cannot be asked about images: it takes something else, or gives no classes. None if it can."""
    how = task.preprocessing
    if how is None or [spec.dtype for spec in task.inputs] != ["UINT8"] or not _fits(task.inputs[0].shape, how):
        return InvalidRequest(f"Task {task.name!r} takes no images; send it tensors through v2/models/{task.name}/infer.")
    if len(task.outputs) != 1 or len(task.outputs[0].shape) != 1:
        return InvalidRequest(f"Task {task.name!r} gives no classes; ask for its values through v2/models/{task.name}/infer.")
    return None


def _fits(shape: tuple[int, ...], how: Preprocessing) -> bool:
    """Whether what `how` makes of an image is a row of this shape, -1 being any size."""
    made = (how.height, how.width, 3)
    return len(shape) == len(made) and all(size in (-1, given) for size, given in zip(shape, made, strict=True))


def _as_image(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise NotAnImage(f"An image is a uint8 array of shape (height, width, 3), not {array.dtype} {array.shape}.")
    return Image.fromarray(array)
