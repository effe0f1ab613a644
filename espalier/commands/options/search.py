"""What the commands profile and greedy have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.commands.options.training import Learning
from espalier.console import console, progress_bars, say

if TYPE_CHECKING:
    from tuning.data.labelled import TaskData
    from tuning.network.backbone import Backbone
    from tuning.search.score import CostOf
    from tuning.search.search import Search, SearchOptions
    from tuning.training.loop import FitOptions

LedgerOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE.jsonl", help="Every training is written down here, and not done again: a search that was stopped goes on."
    ),
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Trainings side by side; default: by the machine's cores.")]
GivenOption = Annotated[
    Path | None, typer.Option(metavar="REPO", help="Price subsets as tasks that are added to this model repository.")
]


@dataclass(frozen=True)
class Candidates:
    """Options of what a search scores, and on what."""

    folds: Annotated[
        int, typer.Option(min=2, help="Folds of the training images to score on; the test images are never looked at.")
    ] = 5
    blocks: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Candidates, separated by commas; default: every block.")
    ] = None
    siamese: Annotated[bool, typer.Option("--siamese", help="Heads see the frozen features beside the tuned ones.")] = False


@dataclass(frozen=True)
class SearchLearning(Learning):
    """Options of what each training of a search does."""

    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate (AdamW, cosine), default 1e-3; a head alone takes ten times that.")
    ] = None


def search_options(backbone: Backbone, candidates: Candidates, workers: int | None, race: bool = True) -> SearchOptions:
    """Return the options as the search takes them. Raises UnknownBlock."""
    from tuning.errors import UnknownBlock
    from tuning.search.search import SearchOptions

    blocks = candidates.blocks
    names = None if blocks is None else tuple(name.strip() for name in blocks.split(",") if name.strip())
    for name in names or ():
        if name not in backbone.blocks:
            raise UnknownBlock(name, backbone.blocks)
    chosen = None if names is None else tuple(block for block in backbone.blocks if block in names)
    return SearchOptions(candidates.folds, chosen, workers, candidates.siamese, race)


@contextmanager
def searching(
    backbone: Backbone, data: TaskData, fit_options: FitOptions, options: SearchOptions, ledger: Path, cost: CostOf | None = None
) -> Iterator[Search]:
    """Open a search with a progress bar. After Ctrl-C it says how to go on."""
    from tuning.search.search import open_search

    with progress_bars() as report:
        try:
            with open_search(
                backbone,
                data,
                fit_options,
                options,
                ledger,
                cost=cost,
                on_epoch=lambda done, total: report("Training (epochs)", done, total),
                say=say,
            ) as search:
                yield search
        except KeyboardInterrupt:
            say(f"Stopped. What was done is in {ledger}; the same command goes on from there.")
            raise typer.Exit(130) from None


def describe_effort(search: Search) -> str:
    """Return what the ledger's trainings took, in a sentence."""
    from contract.units import human_macs

    contents = search.contents
    measured = f" and {len(contents.proxies)} cheap measurements" if contents.proxies else ""
    seconds, macs = sum(one.seconds for one in contents.work), sum(one.macs for one in contents.work)
    return f"{len(contents.trials)} trainings{measured} in the ledger: {seconds:,.0f} s, {human_macs(macs)}."


def names(subset: Sequence[str]) -> str:
    """Return a subset for people."""
    return escape(" + ".join(subset)) or "(head only)"


def show(text: str) -> None:
    """Print a line that is not broken."""
    console.print(text, soft_wrap=True)
