"""What the commands say about the scores of tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contract.repository import Task

_WORDS = {
    "logits": "a softmax of the outputs",
    "probabilities": "the outputs as they are, which are probabilities",
    "independent": "the outputs as they are, each from 0 to 1 by itself",
    "log_probabilities": "exp of the outputs, which are logarithms of probabilities",
    "value": "the only number as it is",
}


def describe_scores(tasks: Iterable[Task]) -> str | None:
    """Return how scores are made of what `tasks` answer, in a sentence; None where none of them is a classifier."""
    names: dict[str, list[str]] = {}
    for task in tasks:
        if task.scores:
            names.setdefault(_WORDS[task.scores], []).append(task.name)
    if not names:
        return None
    alone = len(names) == 1
    parts = [words if alone else f"{words} ({', '.join(members)})" for words, members in names.items()]
    return f"Scores: {'; '.join(parts)}."
