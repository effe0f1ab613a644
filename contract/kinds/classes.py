"""One of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from contract.kinds.kind import Kind, Shapes, Taken, check_count, only_output


class Classes(Kind, frozen=True, tag="classes"):
    """The network gives a vector, shape (n, C): logits or probabilities (`Task.scores` says which). Labels: one a class."""

    ranks: ClassVar[bool] = True

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one vector, with a label an entry or none."""
        (count,) = only_output(outputs, "C", "classes are")
        check_count(len(labels) or count, count, "label", "labels", "classes")
