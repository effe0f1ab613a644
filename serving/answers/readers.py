"""Which reader makes answers of which kind's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from contract.dtypes import Array
from contract.kinds.boxes import Boxes
from contract.kinds.classes import Classes
from contract.kinds.embedding import Embedding
from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.kinds.tokens import Tokens
from contract.kinds.values import Values
from contract.repository.model import Task
from serving.answers.answer import About
from serving.answers.boxes import BoxesAnswer, read_boxes
from serving.answers.classes import ClassesAnswer, read_classes
from serving.answers.embedding import EmbeddingAnswer, read_embedding
from serving.answers.labels import LabelsAnswer, read_labels
from serving.answers.mask import MaskAnswer, read_mask
from serving.answers.shown import show_beside
from serving.answers.tokens import TokensAnswer, read_tokens
from serving.answers.values import ValuesAnswer, read_values
from serving.process.threads import to_thread

AnyAnswer = Annotated[
    ClassesAnswer | LabelsAnswer | ValuesAnswer | EmbeddingAnswer | MaskAnswer | BoxesAnswer | TokensAnswer,
    Field(discriminator="kind"),
]
_Reader = Callable[[Task, Any, Mapping[str, Array], About], Sequence[AnyAnswer]]
_READERS: Mapping[type[Kind], _Reader] = {
    Classes: read_classes,
    Labels: read_labels,
    Values: read_values,
    Embedding: read_embedding,
    Mask: read_mask,
    Boxes: read_boxes,
    Tokens: read_tokens,
}
_MANY_VALUES = 1 << 16  # on the event loop: more take a millisecond


async def read_answers(task: Task, values: Mapping[str, Array], about: About) -> Sequence[AnyAnswer]:
    """Return what `task` answers to people for each row of `values`, its outputs by name; of large ones in a thread."""
    if isinstance(task.answers, Mask) or sum(array.size for array in values.values()) > _MANY_VALUES:
        return await to_thread(_read, task, values, about)
    return _read(task, values, about)


def _read(task: Task, values: Mapping[str, Array], about: About) -> Sequence[AnyAnswer]:
    kind = task.answers
    answers = _READERS[type(kind)](task, kind, values, about)
    if about.show:
        show_beside(answers, task, values, about.show)
    return answers
