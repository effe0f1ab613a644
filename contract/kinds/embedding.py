"""A vector that others are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from contract.kinds.kind import Kind, KindDoesNotFit, Shapes, Taken, only_output


class Embedding(Kind, frozen=True, tag="embedding"):
    """The network gives a vector, shape (n, D). normalized: whether people get it with the Euclidean length 1."""

    normalized: bool = False

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one vector, and no labels."""
        only_output(outputs, "D", "an embedding is")
        if labels:
            raise KindDoesNotFit(f"has {len(labels)} labels, and an embedding has none")
