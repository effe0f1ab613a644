"""Anything: tensors for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from contract.kinds.kind import Kind, Shapes, Taken


class Tensor(Kind, frozen=True, tag="tensor"):
    """The network gives whatever it gives, over the v2 protocol alone."""

    is_for_people: ClassVar[bool] = False

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Accept everything."""
