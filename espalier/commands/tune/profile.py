"""`espalier tune profile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from contract.units import human_macs
from espalier.commands.options.search import (
    Candidates,
    GivenOption,
    LedgerOption,
    SearchLearning,
    WorkersOption,
    describe_effort,
    names,
    search_options,
    searching,
    show,
)
from espalier.commands.options.tables import Tables
from espalier.commands.options.training import Augmentation, Machine, make_fit_options
from espalier.commands.options.tune import BackboneOption, DataOption, Images, Weights
from espalier.console import console

if TYPE_CHECKING:
    from tuning.kinds.metric import Metric
    from tuning.search.ledger import LedgerContents
    from tuning.search.score import Score, Subset

_SHOWN_PAIRS = 10


def profile(
    *,
    backbone: BackboneOption,
    data: DataOption,
    ledger: LedgerOption,
    tables: Tables,
    pairs: Annotated[bool, typer.Option("--pairs", help="Each two blocks together, too.")] = False,
    candidates: Candidates,
    given: GivenOption = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Also what serving each subset would cost (implied by --given).")
    ] = False,
    images: Images,
    weights: Weights,
    learning: SearchLearning,
    augmentation: Augmentation,
    workers: WorkersOption = None,
    machine: Machine,
) -> None:
    """Score each single block by cross-validation on the training images: which part of the network does this task want tuned?

    [dim]espalier tune profile --backbone resnet50.a1_in1k --data flowers/ --ledger flowers.jsonl[/]
    """
    table = tables.options()
    loaded = weights.open(backbone)
    task_data = images.open(data, loaded.spec.preprocessing, table)
    options = search_options(loaded, candidates, workers)
    cost = None
    if costs or given is not None:
        from espalier.commands.tune.pricing import open_costs

        cost = open_costs(loaded, given, len(task_data.labels), latency=False)
    fit_options = make_fit_options(learning, augmentation, machine)
    with searching(loaded, task_data, fit_options, options, ledger, cost) as search:
        scores = search.profile(pairs)
        contents, effort = search.contents, describe_effort(search)
    console.print(_singles(scores, contents))
    if pairs:
        console.print(_best_pairs(scores, contents.header.metric))
    show(effort)


def _singles(scores: Mapping[Subset, Score], contents: LedgerContents) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tuned", no_wrap=True)
    metric = contents.header.metric
    for column in (metric.heading, "deviation", "parameters", "MACs", *(["added MACs"] if contents.costs else [])):
        table.add_column(column, justify="right", no_wrap=True)
    facts = {block.name: block for block in contents.header.blocks}
    best = max(score.worth for subset, score in scores.items() if len(subset) < 2)
    for subset, score in sorted(scores.items(), key=lambda item: [list(facts).index(block) for block in item[0]]):
        if len(subset) > 1:
            continue
        block = facts.get(subset[0]) if subset else None
        reached = metric.text(score.mean, 2)
        table.add_row(
            names(subset),
            f"[bold]{reached}[/]" if score.worth == best else reached,
            metric.text(score.deviation, 2),
            f"{block.parameters:,}" if block else "",
            human_macs(block.macs) if block else "",
            *([human_macs(contents.costs[subset].macs)] if contents.costs else []),
        )
    return table


def _best_pairs(scores: Mapping[Subset, Score], metric: Metric) -> Table:
    table = Table("best pairs", metric.heading, "deviation", box=SIMPLE_HEAD, pad_edge=False)
    pairs = sorted(((score, subset) for subset, score in scores.items() if len(subset) == 2), key=lambda p: -p[0].worth)
    for score, subset in pairs[:_SHOWN_PAIRS]:
        table.add_row(names(subset), metric.text(score.mean, 2), metric.text(score.deviation, 2))
    return table
