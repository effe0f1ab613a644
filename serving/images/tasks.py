"""What images are to tasks: which tasks take them, and the rows that they become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidRequest
from contract.preprocessing import Layout, Preprocessing
from contract.repository.model import Task, TensorSpec
from serving.errors import DeadlineExceeded, NoImageTask, NotAnImage, TooManyPixels
from serving.process.threads import to_thread
from serving.questions import CheckRoom, Groups, Prepared, Rows, group_tasks, refusal_of_answers

AnyImage = Image.Image | NDArray[np.uint8]
_Way = tuple[TensorSpec, Preprocessing, Layout]  # the input, and how an image becomes it
ImageRows = Mapping[Preprocessing, NDArray[np.uint8]]  # what each makes of the images: shape (n, height, width, 3)
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class PreparedImages:
    """Images as rows, and width and height of each as it was given."""

    rows: ImageRows
    sizes: Sequence[tuple[int, int]]


Prepare = Callable[[Sequence[Preprocessing], CheckRoom], Awaitable[PreparedImages]]


@dataclass(frozen=True)
class Images:
    """Images that somebody asks about. as_rows: gives their rows, and is called when the tasks are known to take some."""

    as_rows: Prepare

    def names(self, known: Mapping[str, Task]) -> list[str]:
        """Return the tasks that take images. Raises NoImageTask for none."""
        names = [name for name, task in known.items() if _refusal(task) is None]
        if not names:
            raise NoImageTask
        return names

    def group(
        self, known: Mapping[str, Task], names: Sequence[str], top_k: int | None, partial: bool
    ) -> tuple[Groups[_Way], dict[str, str]]:
        """Return the tasks `names` by their preprocessing and inputs."""
        return group_tasks(known, names, top_k, partial, _refusal, _way)

    async def prepare(self, groups: Groups[_Way], check_room: CheckRoom, deadline: float | None) -> Prepared[_Way]:
        """Return the rows for `groups`, each preprocessing once. Raises DeadlineExceeded, and what `as_rows` raises."""
        made = await _rows_in_time(self.as_rows, groups, check_room, deadline)
        count = len(made.sizes)
        inputs = {way: await _as_input(way, made.rows[way[1]]) for way in groups}
        return Prepared(count, {way: [Rows(range(count), {way[0].name: inputs[way]}, made.sizes)] for way in groups})


def given(images: Sequence[Any]) -> Prepare:
    """Return how PIL images, or uint8 arrays of shape (height, width, 3), become rows; it raises InvalidRequest for none."""

    async def prepare(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
        if len(images) == 0:
            raise InvalidRequest("No image was given; give at least one.")
        pictures = [as_image(image) for image in images]
        for picture in pictures:
            check_resized(picture.width, picture.height, ways)
        check_room(len(pictures))
        rows = await to_thread(lambda: {way: np.stack([way(picture) for picture in pictures]) for way in ways})
        return PreparedImages(rows, [picture.size for picture in pictures])

    return prepare


async def _as_input(way: _Way, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Return `images` as the input takes them, floats being made in a thread."""
    spec, how, layout = way
    if spec.dtype == "UINT8":
        return images
    return await to_thread(how.as_input, images, spec.dtype, layout)


async def _rows_in_time(
    prepare: Prepare, groups: Iterable[_Way], check_room: CheckRoom, deadline: float | None
) -> PreparedImages:
    """Return what `prepare` makes of the images for `groups`, each way once. deadline: in time.monotonic seconds, None: none.

    Raises DeadlineExceeded, and what `prepare` raises.
    """
    ways = [*dict.fromkeys(way[1] for way in groups)]
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


def _refusal(task: Task) -> InvalidRequest | None:
    """Return why `task` cannot be asked about images: it takes something else, or gives tensors alone. None if it can."""
    if task.text is not None:
        return InvalidRequest(f'Task {task.name!r} takes text, not images; send {{"text": ["..."]}} as JSON.')
    if task.preprocessing is None and task.plain is None and task.is_like_image:
        return InvalidRequest(
            f"Task {task.name!r} takes no images, since nobody has said how one becomes its input: add its model again with a "
            f"preprocessing (mean, std, and size where it is free), or send it tensors through v2/models/{task.name}/infer."
        )
    if task.takes != "image":
        return InvalidRequest(f"Task {task.name!r} takes no images; send it tensors through v2/models/{task.name}/infer.")
    return refusal_of_answers(task)


def _way(task: Task) -> _Way:
    if task.preprocessing is None:
        raise ValueError(f"task {task.name!r} takes no images")
    return task.inputs[0], task.preprocessing, task.image_layout


def as_image(image: Any, name: str = "") -> Image.Image:
    """Return `image`, a PIL image or a uint8 array of shape (height, width, 3). Raises NotAnImage, with its `name`."""
    if isinstance(image, Image.Image):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise NotAnImage(
            f"{name + ': ' if name else ''}An image is a uint8 array of shape (height, width, 3), not {array.dtype} {array.shape}."
        )
    return Image.fromarray(array)
