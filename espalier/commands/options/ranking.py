"""Options of which candidates a greedy search trains, and what it says about that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuning.search.ledger import LedgerContents
    from tuning.search.ranking import Ranking


class Rank(StrEnum):
    """What candidates are ranked by."""

    EPOCH = "epoch"
    GRADIENTS = "gradients"
    SINGLES = "singles"


class Halving(StrEnum):
    """Where candidates are given up that might still win."""

    NONE = "none"
    FOLDS = "folds"
    STEPS = "steps"
    BOTH = "both"


@dataclass(frozen=True)
class RankingOptions:
    """Options of which candidates are trained."""

    exhaustive: Annotated[
        bool,
        typer.Option("--exhaustive", help="Train every candidate of every step. The default, as long as --rank is not given."),
    ] = False
    rank: Annotated[
        Rank | None,
        typer.Option(
            help="Train only the upper part of each step's candidates. epoch: by the loss after one epoch; gradients: by the norm of each "
            "block's gradient over its weights'; singles: by what the block scored alone. An exhaustive search may choose others."
        ),
    ] = None
    keep: Annotated[float, typer.Option(help="With --rank: the share of candidates that is trained.")] = 0.5
    halving: Annotated[
        Halving,
        typer.Option(
            help="With --rank: folds: the lower half is given up after each fold; steps: what fell out in one step is no candidate "
            "later; both. None of it is exact."
        ),
    ] = Halving.NONE

    def ranking(self) -> Ranking | None:
        """Return them as the search takes them; None for an exhaustive one. Raises BadParameter, BadOptions."""
        from tuning.search.ranking import Ranking

        if self.rank is None:
            for option, given in (("--keep", self.keep != 0.5), ("--halving", self.halving is not Halving.NONE)):
                if given:
                    raise typer.BadParameter("without --rank every candidate is trained.", param_hint=option)
            return None
        if self.exhaustive:
            raise typer.BadParameter("an exhaustive search ranks nothing; leave out one of the two.", param_hint="--exhaustive")
        return Ranking(self.rank.value, self.keep, self.halving.value)


def describe_ranking(ranking: Ranking, contents: LedgerContents) -> str:
    """Return what was not trained, in a sentence."""
    from tuning.search.replay import search_scores

    scores = search_scores(contents)
    given_up = sum(not score.complete for score in scores.values())
    measured = len(contents.proxies)
    return (
        f"Ranked by {ranking.rank}: {len(scores) - given_up} subsets were trained on every fold, {given_up} on some; {measured} cheap "
        "measurements. An exhaustive search may choose others."
    )
