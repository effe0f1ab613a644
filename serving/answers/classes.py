"""Turns output vectors into classes: probabilities, the best k, and the v2 protocol's classification strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contract.dtypes import Array
from contract.kinds.classes import Classes
from contract.kinds.kind import Scores
from contract.repository.model import Task
from serving.answers.answer import About, LabelScore, TaskAnswer, label_of, softmax
from serving.process.threads import to_thread

_TOP_K = 5  # classes of an answer, where nobody says
_MAX_RANKED_VALUES = 1 << 14  # on the event loop: more take a millisecond


class ClassesAnswer(TaskAnswer):
    """The best classes, best first."""

    kind: Literal["classes"] = "classes"
    labels: list[LabelScore]


def scores(values: NDArray[np.generic], kind: Scores) -> NDArray[np.float64]:
    """Return what clients read as the scores of a network's answer `values`, shape (rows, classes), which is of `kind`.

    The softmax of logits, and of what nobody has looked at; all else as it is, for it is a score already. A single number has no others
    to be compared with, and is itself.
    """
    if kind == "log_probabilities":
        return np.exp(values.astype(np.float64))
    if kind in ("logits", "") and values.shape[1] > 1:
        return softmax(values)
    return values.astype(np.float64)


def best(values: NDArray[np.generic], k: int) -> NDArray[np.intp]:
    """Return the indices of the `k` largest of each row of `values` (rows, classes), largest first, ties by index.

    All classes when there are fewer than `k`; NaN comes last.
    """
    # Turned round without rounding: large integers are no floats, and the smallest has no negative.
    turned = -values.astype(np.float64) if values.dtype.kind == "f" else np.invert(values)
    return np.asarray(np.argsort(turned, axis=1, kind="stable")[:, :k])


def read_classes(task: Task, kind: Classes, values: Mapping[str, Array], about: About) -> list[ClassesAnswer]:
    """Return the best classes of each row of the only output, shape (n, classes)."""
    rows = values[task.outputs[0].name]
    top_k = _TOP_K if about.top_k is None else about.top_k
    return [
        ClassesAnswer(
            version=task.version,
            labels=[LabelScore(label=label_of(task, int(index)), score=float(row[index])) for index in indices],
        )
        for row, indices in zip(scores(rows, task.scores), best(rows, top_k), strict=True)
    ]


def classification_strings(values: NDArray[np.generic], labels: Sequence[str], k: int) -> NDArray[np.object_]:
    """Return the best `k` of each row as Triton writes them: bytes "value:index" or "value:index:label", shape (rows, k).

    values: of a type in `validate.CLASS_DTYPES`; floats with six digits, integers without any. An empty label is none.
    """
    indices = best(values, k)
    form = "%f:%d%s" if values.dtype.kind == "f" else "%d:%d%s"
    strings = np.empty(indices.shape, dtype=object)
    endings: dict[int, str] = {}
    for row, chosen in enumerate(indices.tolist()):  # by rows, not all at once: as Python's objects they take much memory
        endings.update((index, _ending(labels, index)) for index in chosen if index not in endings)
        numbers = values[row, indices[row]].tolist()
        strings[row] = [(form % (number, index, endings[index])).encode() for number, index in zip(numbers, chosen, strict=True)]
    return strings


async def as_classes(values: Array, labels: Sequence[str], k: int) -> NDArray[np.object_]:
    """Return `classification_strings` of `values`, of many in a thread."""
    if values.size > _MAX_RANKED_VALUES:
        return await to_thread(classification_strings, values, labels, k)
    return classification_strings(values, labels, k)


def assumed_scores(tasks: Iterable[Task]) -> str | None:
    """Return which of `tasks` have a softmax for their scores although nobody has looked at what they answer; None: none has."""
    unknown = [
        task.name
        for task in tasks
        if not task.scores and task.takes == "image" and isinstance(task.answers, Classes) and task.outputs[0].shape != (1,)
    ]
    if not unknown:
        return None
    return (
        f"Tasks that do not say what their outputs are, having been exported by an earlier version: {', '.join(unknown)}. Their scores "
        "are a softmax of them; export them again if they are probabilities already."
    )


def _ending(labels: Sequence[str], index: int) -> str:
    label = labels[index] if index < len(labels) else ""
    return label and f":{label}"
