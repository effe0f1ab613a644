"""`espalier tune compare`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from espalier.commands.options.search import LedgerOption, WorkersOption
from espalier.commands.options.tables import Tables
from espalier.commands.options.training import Augmentation, Learning, Machine, make_fit_options
from espalier.commands.options.tune import AllImages, BackboneOption, DataOption, Weights
from espalier.console import console, loading, progress_bars, say

if TYPE_CHECKING:
    from tuning.kinds.metric import Metric
    from tuning.search.compare import Comparison
    from tuning.search.ledger import Trial

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class _Learning(Learning):
    lr: float | None = field(default=None, init=False)  # --lrs
    seed: int = field(default=0, init=False)  # --seeds


@dataclass(frozen=True)
class _Plan:
    """Options of what is compared, how often, and what methods choose from."""

    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES|all",
            help="Separated by commas: linear-probe, subtuning, siamese-subtuning, full-finetuning, all-blocks, lp-ft, surgical, "
            "auto-rgn, gradual-unfreezing, lora, norm-only.",
        ),
    ] = "linear-probe,subtuning,full-finetuning"
    sizes: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Numbers of training images, separated by commas; default: all of them.")
    ] = None
    seeds: Annotated[int, typer.Option(min=1, help="So many draws of images, heads and orders.")] = 5
    lrs: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Learning rates to choose from; a linear probe takes ten times these.")
    ] = "1e-4,1e-3,1e-2"
    folds: Annotated[int, typer.Option(min=2, help="Folds of the training images, by which every method makes its choices.")] = 5
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="SUBSETS", help="What subtuning chooses from, as layer4.1,layer3.0+layer4.1; default: any single block."
        ),
    ] = None

    def comparison(self, workers: int | None) -> Comparison:
        """Return it as tuning takes it. Raises BadParameter."""
        from tuning.search.compare import METHODS, Comparison

        return Comparison(
            methods=tuple(METHODS)
            if self.methods == "all"
            else tuple(_method(name, METHODS) for name in self.methods.split(",")),
            sizes=tuple(_numbers(self.sizes, int, "--sizes")) if self.sizes else (),
            seeds=tuple(range(self.seeds)),
            lrs=tuple(_numbers(self.lrs, float, "--lrs")),
            folds=self.folds,
            blocks=tuple(name.strip() for name in self.blocks.split(",")) if self.blocks else (),
            workers=workers,
        )


def compare(
    *,
    backbone: BackboneOption,
    data: DataOption,
    ledger: LedgerOption,
    tables: Tables,
    plan: _Plan,
    images: AllImages,
    weights: Weights,
    learning: _Learning,
    augmentation: Augmentation,
    workers: WorkersOption = None,
    machine: Machine,
) -> None:
    """Compare SubTuning with its baselines under one budget: the same images and epochs, every choice by cross-validation on them.

    Only the final training of each method is measured on the test images, once per size and seed.

    [dim]espalier tune compare --backbone resnet50.a1_in1k --data flowers/ --sizes 100,200,400 --ledger flowers-methods.jsonl[/]
    """
    with loading():
        from tuning.kinds.registry import objective_of
        from tuning.search.compare import compare as run

    table = tables.options()
    loaded = weights.open(backbone)
    task_data = images.open(data, loaded.spec.preprocessing, table)
    comparison = plan.comparison(workers)
    fit_options = make_fit_options(learning, augmentation, machine)
    try:
        with progress_bars() as report:
            trials = run(loaded, task_data, fit_options, comparison, ledger, on_run=report, say=say)
    except KeyboardInterrupt:
        say(f"Stopped. What was done is in {ledger}; the same command goes on from there.")
        raise typer.Exit(130) from None
    console.print(_table(trials, comparison.methods, objective_of(task_data).metric))


def _table(trials: Sequence[Trial], methods: Sequence[str], metric: Metric) -> Table:
    sizes = sorted({trial.train_images for trial in trials})
    less = "; less is better" * metric.less_is_better
    title = f"{metric.heading[0].upper()}{metric.heading[1:]}, of the test images: mean and standard deviation over seeds{less}"
    table = Table(title=escape(title), box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("method", no_wrap=True)
    for size in sizes:
        table.add_column(f"{size} images", justify="right", no_wrap=True)
    for method in methods:
        cells = []
        for size in sizes:
            values = [t.score for t in trials if t.method == method and t.train_images == size]
            spread = f" ± {metric.text(statistics.stdev(values))}" if len(values) > 1 else ""
            cells.append(f"{metric.text(statistics.fmean(values))}{spread}" if values else "")
        table.add_row(escape(method), *cells)
    return table


def _method(text: str, known: Iterable[str]) -> str:
    """Return the method of that name, written with dashes or with spaces; other names as they are."""
    return next((name for name in known if name.replace(" ", "-") == text.strip().replace(" ", "-")), text.strip())


def _numbers(text: str, kind: Callable[[str], _Number], option: str) -> list[_Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} must be numbers, separated by commas.", param_hint=option) from error
