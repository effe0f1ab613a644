"""What an answer is made of, for who asks to see it: the network's numbers, the scores of all labels, what the picture or text became."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

from numpy.typing import NDArray

from contract.dtypes import Array
from contract.errors import InvalidRequest
from contract.kinds.classes import Classes
from contract.kinds.embedding import Embedding
from contract.kinds.kind import Kind, Scores
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from contract.repository.model import Task
from serving.answers.answer import Shown, TaskAnswer
from serving.answers.classes import scores
from serving.answers.labels import label_scores

_SHOWN = get_args(Shown)
_LOGITS = (Classes, Labels, Values, Embedding)  # whose network gives one vector
_SCORES: Mapping[type[Kind], Callable[[NDArray[Any], Scores], NDArray[Any]]] = {Classes: scores, Labels: label_scores}


def parse_shown(words: Iterable[str]) -> tuple[Shown, ...]:
    """Return `words`, each perhaps several with commas between them, as what is to be shown. Raises InvalidRequest for another one."""
    asked = [word.strip() for text in ([words] if isinstance(words, str) else words) for word in text.split(",") if word.strip()]
    for word in asked:
        if word not in _SHOWN:
            raise InvalidRequest(f"{word!r} is nothing that is shown beside an answer; known are: {', '.join(_SHOWN)}.")
    return tuple(word for word in _SHOWN if word in asked)


def check_shown(tasks: Sequence[Task], show: Collection[Shown]) -> None:
    """Raise InvalidRequest where none of `tasks` has what is to be shown."""
    for word in show:
        if tasks and not any(_has(task, word) for task in tasks):
            task = tasks[0]
            raise InvalidRequest(
                f"Task {task.name!r} is of the kind {task.answers.word()!r}, which has no {word} to show; ask for its values through "
                f"v2/models/{task.name}/infer."
            )


def show_beside(answers: Sequence[TaskAnswer], task: Task, values: Mapping[str, Array], show: Collection[Shown]) -> None:
    """Put into `answers` of `task`, one for each row of `values`, what is to be shown and there is."""
    given = values[task.outputs[0].name]
    if "logits" in show and _has(task, "logits"):
        for answer, row in zip(answers, given.tolist(), strict=True):
            answer.logits = row
    if "scores" in show and _has(task, "scores"):
        for answer, row in zip(answers, _SCORES[type(task.answers)](given, task.scores).tolist(), strict=True):
            answer.scores = row
    if "preprocessing" in show:
        for answer in answers:
            answer.preprocessing = task.text or task.preprocessing


def _has(task: Task, word: Shown) -> bool:
    if word == "preprocessing":
        return True
    return isinstance(task.answers, _LOGITS) if word == "logits" else type(task.answers) in _SCORES
