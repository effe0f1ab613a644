"""A vector that others are compared with."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from contract.dtypes import Array
from contract.kinds.embedding import Embedding
from contract.repository.model import Task
from serving.answers.answer import About, TaskAnswer


class EmbeddingAnswer(TaskAnswer):
    """The vector."""

    kind: Literal["embedding"] = "embedding"
    size: int
    vector: list[float | None] | str = Field(
        description="The numbers, null where one is not finite; or the base64 of them as little-endian float32, where that was asked for."
    )


def read_embedding(task: Task, kind: Embedding, values: Mapping[str, Array], about: About) -> list[EmbeddingAnswer]:
    """Return each row of the only output, shape (n, D), of the Euclidean length 1 where the kind says so; a row of zeros stays."""
    rows = values[task.outputs[0].name].astype(np.float32)
    if kind.normalized:
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # infinities have no direction: NaN, and no warning
            rows = (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return [EmbeddingAnswer(version=task.version, size=len(row), vector=_written(row, about)) for row in rows]


def _written(row: Array, about: About) -> list[float | None] | str:
    if about.vectors == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return list(row.tolist())
