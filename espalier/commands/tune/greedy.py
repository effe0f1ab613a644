"""`espalier tune greedy`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import human_bytes, human_macs
from espalier.commands.options.ranking import RankingOptions, describe_ranking
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
from espalier.commands.options.tune import BackboneOption, DataOption, Images, Weights, remark
from espalier.console import console
from espalier.tables.greedy import describe_columns, steps_tables

if TYPE_CHECKING:
    from tuning.kinds.metric import Metric
    from tuning.search.greedy import StopRule
    from tuning.search.ledger import LedgerContents
    from tuning.search.score import Objective


class Direction(StrEnum):
    """From which end the search goes."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


class Meaning(StrEnum):
    """What epsilon means."""

    GAIN = "gain"
    DROP = "drop"


@dataclass(frozen=True)
class _Stopping:
    """Options of when the search stops."""

    epsilon: Annotated[
        float | None,
        typer.Option(
            help="In units of the metric: of accuracy and average precision 0.005, the default, is half a point; of values the default is "
            "half a per cent of their standard deviation."
        ),
    ] = None
    meaning: Annotated[
        Meaning,
        typer.Option(
            help="gain: a block must be worth at least epsilon. drop: the smallest subset at most epsilon below the best on the way."
        ),
    ] = Meaning.GAIN
    max_blocks: Annotated[int | None, typer.Option(min=1, help="The most blocks to tune.")] = None

    def rule(self, metric: Metric) -> StopRule:
        """Return them as the search takes them."""
        from tuning.search.greedy import StopRule

        return StopRule(metric.epsilon if self.epsilon is None else self.epsilon, self.meaning.value, self.max_blocks)


@dataclass(frozen=True)
class _Weighing:
    """Options of what serving costs count."""

    cost_weight: Annotated[
        float,
        typer.Option(min=0, help="How much of the metric the whole backbone's MACs are worth: of accuracy 0.05 is five points."),
    ] = 0.0
    bytes_weight: Annotated[
        float, typer.Option(min=0, help="How much of the metric the whole backbone's weight bytes are worth.")
    ] = 0.0
    latency_budget_ms: Annotated[
        float | None, typer.Option(min=0, help="Only subsets that add at most so much to a request, measured here, batch 1.")
    ] = None

    def objective(self) -> Objective:
        """Return them as the search takes them."""
        from tuning.search.score import Objective

        return Objective(self.cost_weight, self.bytes_weight, self.latency_budget_ms)


def greedy(
    *,
    backbone: BackboneOption,
    data: DataOption,
    ledger: LedgerOption,
    tables: Tables,
    direction: Annotated[
        Direction,
        typer.Option(help="forward: from the head alone, adding; backward: from all blocks, removing; both: the better."),
    ] = Direction.FORWARD,
    stopping: _Stopping,
    weighing: _Weighing,
    given: GivenOption = None,
    race: Annotated[
        bool, typer.Option("--race/--no-race", help="Give up candidates that cannot win any more; the outcome is the same.")
    ] = True,
    ranked: RankingOptions,
    candidates: Candidates,
    images: Images,
    weights: Weights,
    learning: SearchLearning,
    augmentation: Augmentation,
    workers: WorkersOption = None,
    machine: Machine,
) -> None:
    """Choose the blocks to tune, one after the other, by cross-validation on the training images (Algorithm 1 of SubTuning).

    With --rank, only the upper part of each step's candidates is trained.
    With costs, a block that serves cheaper wins over one that is hardly better; --given prices it as a task more in a repository.

    [dim]espalier tune greedy --backbone resnet50.a1_in1k --data flowers/ --ledger flowers.jsonl --cost-weight 0.02 --given repo[/]
    """
    ranking = ranked.ranking()
    table = tables.options()
    loaded = weights.open(backbone)
    task_data = images.open(data, loaded.spec.preprocessing, table)
    options = replace(search_options(loaded, candidates, workers, race), ranking=ranking)
    objective = weighing.objective()
    cost = None
    if objective.needs_cost or given is not None:
        from espalier.commands.tune.pricing import open_costs

        cost = open_costs(loaded, given, len(task_data.labels), latency=objective.latency_budget_ms is not None)
    fit_options = make_fit_options(learning, augmentation, machine)
    with searching(loaded, task_data, fit_options, options, ledger, cost) as search:
        found = search.select(direction.value, stopping.rule(search.contents.header.metric), objective)
        contents, effort = search.contents, describe_effort(search)
    for printed in steps_tables(found, contents, objective):
        console.print(printed)
    remark(*describe_columns(found, contents, objective))
    show(f"Chosen: [bold]{names(found.chosen.subset)}[/]. The search stopped because {escape(found.why)}.")
    if ranking is not None:
        show(describe_ranking(ranking, contents))
    if contents.costs:
        console.print(_front(contents))
    show(effort)


def _front(contents: LedgerContents) -> Table:
    """Return the subsets among all that were evaluated which no other beats in accuracy and MACs."""
    from tuning.search.replay import search_scores
    from tuning.search.score import pareto_front

    scores = {subset: score for subset, score in search_scores(contents).items() if score.complete and subset in contents.costs}
    front = pareto_front({subset: (contents.costs[subset].macs, score.worth) for subset, score in scores.items()})
    metric = contents.header.metric
    title = f"{metric.opening} against serving cost: what no other subset beats"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("tuned")
    for column in (metric.heading, "added MACs", "share", "added weights", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for subset in front:
        cost, score = contents.costs[subset], scores[subset]
        latency = "" if cost.latency_ms is None else f"{cost.latency_ms:.2f}"
        table.add_row(
            names(subset),
            metric.text(score.mean, 2),
            human_macs(cost.macs),
            f"{cost.macs_share:.1%}",
            human_bytes(cost.weight_bytes),
            latency,
        )
    return table
