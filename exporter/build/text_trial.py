"""Whether networks run what their tokenizers give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from contract.dtypes import Array
from contract.repository import Repository, Task
from contract.text import TextInput, TextRows, Tokenizer, as_inputs
from exporter.build.parity import ParityChecker
from exporter.errors import CannotRun, TokenizerDoesNotFit
from exporter.sources.task_model import TaskModel

_SAMPLE = ("A text of a few words, to try the network with.", "Two.")


def check_texts(repository: Repository, tasks: Iterable[str], models: Mapping[str, TaskModel]) -> None:
    """Let a text, and the largest id of the tokenizer, run through those of `tasks` that take texts; each first segment once.

    models: that bring a tokenizer, by task. Raises TokenizerDoesNotFit.
    """
    checker, tried = ParityChecker(repository), set()
    for name in tasks:
        task, tokenizer = repository.tasks[name], models[name].tokenizer
        if task.text is None or tokenizer is None:
            continue
        first = frozenset(step.segment for step in task.steps if {*task.text.names} & {*step.inputs})
        if (first, task.text) not in tried:
            tried.add((first, task.text))
            _try(checker, task, task.text, tokenizer.opened)
            checker.keep_only([name])


def _try(checker: ParityChecker, task: Task, text: TextInput, tokenizer: Tokenizer) -> None:
    for rows in tokenizer.encode(_SAMPLE, text, cut=True).rows:
        for what, inputs in (("a text", rows.inputs), ("its largest id", _with_largest(rows, text, tokenizer))):
            typed = as_inputs(TextRows(rows.places, inputs), {spec.name: spec.dtype for spec in task.inputs})
            try:
                checker.compose(task.name, [typed[spec.name] for spec in task.inputs])
            except CannotRun as error:
                raise TokenizerDoesNotFit(task.name, f"{what} does not run through the network ({error.reason})") from error


def _with_largest(rows: TextRows, text: TextInput, tokenizer: Tokenizer) -> dict[str, Array]:
    ids = np.array(rows.inputs[text.ids])
    ids[:, 0] = tokenizer.words - 1
    return {**rows.inputs, text.ids: ids}
