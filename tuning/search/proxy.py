"""What a cheap measurement of candidates leaves in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuning.search.score import Subset


@dataclass(frozen=True)
class Proxy:
    """A cheap measurement that candidates are ranked by (`tuning.search.proxies` measures it).

    name: "epoch" or "gradients". subset: what it was measured of: a subset that was tuned, or single blocks. fold: the one whose
    training rows it has seen. values: by measure; of "epoch" one number for the subset, of "gradients" one for each block.
    epochs, seconds, macs, processor_s: what it took, as of a `Trial`.
    """

    name: str
    subset: Subset
    fold: int
    seed: int
    train_images: int
    values: Mapping[str, tuple[float, ...]]
    epochs: int
    lr: float
    seconds: float
    macs: int
    processor_s: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What was measured: equal keys, equal values."""
        return (self.name, self.subset, self.fold, self.seed, self.train_images, self.lr)


def read_proxy(fields: Mapping[str, Any]) -> Proxy:
    """Return the measurement of a ledger's line. Raises KeyError, TypeError, AttributeError for what is none."""
    values = {measure: tuple(numbers) for measure, numbers in fields["values"].items()}
    return Proxy(**{**fields, "subset": tuple(fields["subset"]), "values": values})
