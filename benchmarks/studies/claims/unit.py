"""A unit of the study, and what it gave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_RECIPE = 1
"""Raised when units of the same words would give something else; entries of other recipes are not looked at."""

SUBTUNING = ("subtuning", "subtuning, one block", "siamese subtuning")
METHODS = (*SUBTUNING, "linear probe", "full finetuning", "lp-ft", "surgical", "lora")


@dataclass(frozen=True)
class Settings:
    """What all units have in common.

    image_size: pixels. lr: of searches; methods choose among `lrs`. max_blocks: of greedy searches. gain: the greedy rule's epsilon.
    teachers, student_*, transfer_*: of transfer; the student's network is a ResNet-18.
    """

    backbone: str = "pypi:efficientnet_lite0"
    image_size: int = 128
    epochs: int = 10
    batch_size: int = 16
    folds: int = 3
    lr: float = 1e-3
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    max_blocks: int = 3
    gain: float = 0.005
    cost_weight: float = 0.1
    teachers: tuple[str, ...] = ("pypi:efficientnet_lite0", "pypi:efficientnet_lite2")
    student_channels: tuple[int, ...] = (16, 32, 64, 128)
    student_size: int = 64
    student_epochs: int = 8
    transfer_steps: int = 400


@dataclass(frozen=True)
class Unit:
    """kind: one of "costs", "search", "method", "active", "transfer". task: a name of `tasks.py`, "" for none. images: to learn from.

    blocks: of a search, the most. method: of a kind "method" or "transfer". beta: of transfer.
    """

    kind: str
    task: str = ""
    images: int = 0
    seed: int = 0
    method: str = ""
    blocks: int = 0
    beta: float = 0.0

    def key(self, settings: Settings) -> str:
        """Return 16 hexadecimal digits that name all that decides about the result."""
        content = json.dumps({"recipe": _RECIPE, "settings": asdict(settings), "unit": asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def words(self) -> str:
        """The unit for people."""
        parts = (
            self.task,
            self.method,
            f"{self.images} images" if self.images else "",
            f"beta {self.beta:g}" if self.beta else "",
        )
        said = ", ".join(part for part in parts if part)
        return f"{self.kind}: {said}, seed {self.seed}" if said else self.kind


@dataclass(frozen=True)
class Entry:
    """What a unit gave, and what it took.

    result: by kind, see the module of that name in `units`. seconds: by the clock, of all runs that worked on it. processor_s: of all
    their threads. busy: the machine did other things meanwhile, so that `seconds` say little. machine: in a line.
    """

    unit: Unit
    result: Mapping[str, Any]
    seconds: float
    processor_s: float
    busy: bool
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def core_s(self) -> float:
        """Seconds that a core was taken: by the clock, or of the processor where the machine was busy, as the clock then says little."""
        return self.processor_s if self.busy else self.seconds
