"""A ledger that is to be looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from espalier.figures.errors import LedgerLacks
from tuning.kinds.metric import Metric
from tuning.search.ledger import LedgerContents, read_ledger
from tuning.search.replay import search_scores
from tuning.search.score import Score, Subset


@dataclass(frozen=True)
class Source:
    """A ledger and where it is."""

    path: Path
    contents: LedgerContents

    @property
    def is_search(self) -> bool:
        """Whether it is of a search by cross-validation, and not of a comparison on the test split."""
        return self.contents.header.folds > 0

    @property
    def about(self) -> str:
        """Backbone and data, for titles."""
        return f"{self.backbone} on {self.data}"

    @property
    def backbone(self) -> str:
        """The network's name, without the options that it was built with."""
        return self.contents.header.backbone.partition(" ")[0]

    @property
    def data(self) -> str:
        """The data's name, without what stands in brackets (which fonts drew the glyphs)."""
        return re.sub(r" \([^)]*\)", "", self.contents.header.data)

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return self.contents.header.metric

    @property
    def folds(self) -> str:
        """What means and deviations are over."""
        count = self.contents.header.folds
        return f"{count} folds" if count > 1 else "one validation split"

    @property
    def scores(self) -> dict[Subset, Score]:
        """Scores of the search. Raises LedgerLacks for a comparison."""
        self.require_search()
        return search_scores(self.contents)

    def require_search(self) -> None:
        """Raise LedgerLacks for a comparison."""
        if not self.is_search:
            raise LedgerLacks(
                self.path,
                "a comparison of methods on the test split, not a search",
                "give the ledger of tune profile or tune greedy",
            )


def open_source(path: Path) -> Source:
    """Read the ledger at `path`. Raises BadLedger."""
    return Source(path, read_ledger(path))
