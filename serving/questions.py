"""What people ask: a few images or texts, and tasks by their names. What is common to both kinds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from contract.dtypes import Array
from contract.errors import InvalidRequest, NoTask, UnknownTask
from contract.repository.model import Task
from contract.text import EncodedText
from serving.errors import TooManyNames
from serving.validate import SPARE_NAMES

_Way = TypeVar("_Way", bound=Hashable)
Groups = Mapping[_Way, list[str]]
"""Tasks by what they take: those of a group see the same arrays, and share what they have in common."""
CheckRoom = Callable[[int], None]  # raises QueueFull when so many rows may not wait


@dataclass(frozen=True)
class Rows:
    """What goes through the tasks of a group together. places: of the images or texts that the rows are. inputs: by name.

    pictures: width and height of each image as it was given. texts: each text, with its tokens. One of them is empty.
    """

    places: Sequence[int]
    inputs: Mapping[str, Array]
    pictures: Sequence[tuple[int, int]] = ()
    texts: Sequence[EncodedText] = ()


@dataclass(frozen=True)
class Prepared(Generic[_Way]):
    """All images or texts of a request, `count` of them, as rows for each group.

    cut: by group, the places of texts too long for it. refused: the groups that cannot be asked about them, and why; they have no rows.
    """

    count: int
    rows: Mapping[_Way, Sequence[Rows]]
    cut: Mapping[_Way, frozenset[int]] = field(default_factory=dict)
    refused: Mapping[_Way, InvalidRequest] = field(default_factory=dict)


class Question(Protocol[_Way]):
    """Images or texts, before they are rows."""

    def names(self, known: Mapping[str, Task]) -> list[str]:
        """Return the tasks that can be asked. Raises InvalidRequest for none."""

    def group(
        self, known: Mapping[str, Task], names: Sequence[str], top_k: int | None, partial: bool
    ) -> tuple[Groups[_Way], dict[str, str]]:
        """Return the tasks `names` by what they take, and as `group_tasks` why others are left out. Raises what that does."""

    async def prepare(self, groups: Groups[_Way], check_room: CheckRoom, deadline: float | None) -> Prepared[_Way]:
        """Return the rows for `groups`. deadline: in time.monotonic seconds, None: none. Raises InvalidRequest, DeadlineExceeded."""


def group_tasks(
    known: Mapping[str, Task],
    names: Sequence[str],
    top_k: int | None,
    partial: bool,
    refusal: Callable[[Task], InvalidRequest | None],
    way: Callable[[Task], _Way],
) -> tuple[dict[_Way, list[str]], dict[str, str]]:
    """Return the tasks `names` by the `way` in which each takes what is asked about.

    partial: tasks that cannot be asked, by `refusal`, are left out as long as others can; the second of the results says why, by name.
    Raises NoTask, TooManyNames, UnknownTask, InvalidRequest.
    """
    if top_k is not None and top_k < 1:
        raise InvalidRequest(f"top_k is {top_k}; ask for at least 1 class.")
    if not names:
        raise NoTask(known)
    if len(names) > len(known) + SPARE_NAMES:
        raise TooManyNames(len(names), len(known), "tasks")
    in_order = [] if known.keys() >= {*names} else sorted(known)
    groups: dict[_Way, list[str]] = {}
    refused: dict[str, InvalidRequest] = {}
    for name in dict.fromkeys(names):
        task = known.get(name)
        reason = UnknownTask(name, in_order) if task is None else refusal(task)
        if reason is not None:
            refused[name] = reason
        elif task is not None:
            groups.setdefault(way(task), []).append(name)
    if refused and not (partial and groups):
        raise next(iter(refused.values()))
    _check_ranked([known[name] for members in groups.values() for name in members], top_k)
    return groups, {name: str(reason) for name, reason in refused.items()}


def refusal_of_answers(task: Task) -> InvalidRequest | None:
    """Return why `task` gives tensors alone; None if people can read its answers."""
    if task.answers.is_for_people:
        return None
    return InvalidRequest(
        f"Task {task.name!r} is of the kind 'tensor', which people do not read; ask for its values through v2/models/{task.name}/infer, or "
        "export it as one of another kind."
    )


def _check_ranked(tasks: Sequence[Task], top_k: int | None) -> None:
    """Raise InvalidRequest where the best `top_k` are asked of `tasks` of which none has best parts."""
    if top_k is not None and tasks and not any(task.answers.ranks for task in tasks):
        raise InvalidRequest(
            f"Task {tasks[0].name!r} is of the kind {tasks[0].answers.word()!r}, which has no best {top_k}; leave out top_k."
        )
