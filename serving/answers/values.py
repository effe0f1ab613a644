"""Numbers with names and units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from contract.dtypes import Array
from contract.kinds.values import Values
from contract.repository.model import Task
from serving.answers.answer import About, TaskAnswer, label_of


class NamedValue(BaseModel):
    """A number that a network gives."""

    name: str
    value: float | None = Field(description="Null where it is not finite.")
    unit: str = Field(description="Empty: none is known.")


class ValuesAnswer(TaskAnswer):
    """All numbers, in their order."""

    kind: Literal["values"] = "values"
    values: list[NamedValue]


def read_values(task: Task, kind: Values, values: Mapping[str, Array], about: About) -> list[ValuesAnswer]:
    """Return each row of the only output, shape (n, V), as numbers with names and units."""
    return [
        ValuesAnswer(
            version=task.version,
            values=[
                NamedValue(name=label_of(task, index), value=float(value), unit=kind.unit(index))
                for index, value in enumerate(row)
            ],
        )
        for row in values[task.outputs[0].name]
    ]
