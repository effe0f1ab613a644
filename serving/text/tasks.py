"""What texts are to tasks: which tasks take them, and the rows of ids that they become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from contract.errors import EmptyText, InvalidRequest, TextTooManyTokens
from contract.repository.model import Task, TensorSpec
from contract.text import TextInput, Tokenizer, as_inputs
from serving.errors import DeadlineExceeded, NoText, NoTextTask
from serving.process.work_pool import Check, WorkPool
from serving.questions import CheckRoom, Groups, Prepared, Rows, group_tasks, refusal_of_answers

_Way = tuple[tuple[TensorSpec, ...], TextInput]
_pool = WorkPool(name="texts")


@dataclass(frozen=True)
class Texts:
    """Texts that somebody asks about.

    tokenizer_of: of what is served. cut: whether of one that is too long the beginning is answered. partial: whether tasks are left out for
    which one is too long, or has no tokens, as long as others can answer.
    """

    texts: Sequence[str]
    tokenizer_of: Callable[[TextInput], Tokenizer]
    cut: bool = False
    partial: bool = False

    def names(self, known: Mapping[str, Task]) -> list[str]:
        """Return the tasks that take texts. Raises NoTextTask for none."""
        names = [name for name, task in known.items() if _refusal(task) is None]
        if not names:
            raise NoTextTask
        return names

    def group(
        self, known: Mapping[str, Task], names: Sequence[str], top_k: int | None, partial: bool
    ) -> tuple[Groups[_Way], dict[str, str]]:
        """Return the tasks `names` by their tokenizers and inputs.

        Those whose answers padding changes take others along that differ in nothing else: a text that is not padded is right for both, and
        what they have in common runs once for each length, instead of that and once more.
        """
        groups, refused = group_tasks(known, names, top_k, partial, _refusal, _way)
        together: dict[_Way, list[str]] = {}
        for (inputs, text), members in groups.items():
            bare = inputs, replace(text, padded=False)
            together.setdefault(bare if bare in groups else (inputs, text), []).extend(members)
        return together, refused

    async def prepare(self, groups: Groups[_Way], check_room: CheckRoom, deadline: float | None) -> Prepared[_Way]:
        """Return the rows of ids for `groups`, made in a thread. Raises NoText, EmptyText, TextTooManyTokens, ExtraNeeded."""
        if not self.texts:
            raise NoText
        check_room(len(self.texts))
        tokenizers = {way: self.tokenizer_of(way[1]) for way in groups}
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                return await _pool.run(lambda check: self._encoded(tokenizers, check))
        except TimeoutError:
            raise DeadlineExceeded from None

    def _encoded(self, tokenizers: Mapping[_Way, Tokenizer], check: Check) -> Prepared[_Way]:
        rows: dict[_Way, list[Rows]] = {}
        cut: dict[_Way, frozenset[int]] = {}
        refused: dict[_Way, InvalidRequest] = {}
        for way, tokenizer in tokenizers.items():
            inputs, text = way
            dtypes = {spec.name: spec.dtype for spec in inputs}
            try:
                encoded = tokenizer.encode(self.texts, text, cut=self.cut, check=check)
            except (EmptyText, TextTooManyTokens) as error:
                if not self.partial:
                    raise
                refused[way] = error
                continue
            rows[way] = [Rows(part.places, as_inputs(part, dtypes), texts=part.texts) for part in encoded.rows]
            cut[way] = encoded.cut
        if not rows:
            raise next(iter(refused.values()))
        return Prepared(len(self.texts), rows, cut, refused)


def _refusal(task: Task) -> InvalidRequest | None:
    """Return why `task` cannot be asked about texts: it has no tokenizer, or gives tensors alone. None if it can."""
    if task.text is None:
        takes = "takes images" if task.preprocessing is not None else "has no tokenizer"
        return InvalidRequest(f"Task {task.name!r} {takes}, so it takes no text; send it what it takes.")
    return refusal_of_answers(task)


def _way(task: Task) -> _Way:
    if task.text is None:
        raise ValueError(f"task {task.name!r} takes no text")
    return task.inputs, task.text
