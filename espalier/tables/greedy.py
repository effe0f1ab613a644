"""The steps of a greedy search as tables: every candidate of each step with what it scored, and the one that was taken."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import human_macs
from tuning.search.greedy import GreedyStep, Selection, candidates
from tuning.search.ledger import LedgerContents
from tuning.search.replay import make_preference, search_scores, searched_blocks
from tuning.search.score import Objective, Score, Subset


def steps_tables(found: Selection, contents: LedgerContents, objective: Objective) -> tuple[Table, ...]:
    """Return a table for where the search began, and one for each step: the candidates, the best first; the last led nowhere."""
    scores, blocks = search_scores(contents), searched_blocks(contents)
    start = found.steps[0]
    tables = [_table(contents, objective, _start_words(found), [("", start.subset, start.score)], None, found.chosen)]
    for number, step in enumerate(found.steps, 1):
        taken = found.steps[number] if number < len(found.steps) else None
        looked_at = [
            (name, subset, scores[subset])
            for name, subset in candidates(step.subset, blocks, found.direction)
            if subset in scores
        ]
        if looked_at:
            tables.append(_table(contents, objective, _step_words(number, found, taken), looked_at, taken, found.chosen))
    return tuple(tables)


def describe_columns(found: Selection, contents: LedgerContents, objective: Objective) -> tuple[str, ...]:
    """Return how the tables are read, a sentence each."""
    metric, folds = contents.header.metric, contents.header.folds
    over = f"{folds} folds of the training images" if folds > 1 else "the validation split"
    better = "less is better" if metric.less_is_better else "more is better"
    lines = [f"{metric.opening}: the mean over {over}, with the standard deviation; {better}. >: taken; *: the answer."]
    if objective.needs_cost:
        sign = "plus" if metric.less_is_better else "less"
        weighed = [
            f"{metric.words(weight, digits=2)} x its share of the backbone's {what}"
            for weight, what in ((objective.macs_weight, "MACs"), (objective.bytes_weight, "weight bytes"))
            if weight
        ]
        costs = f" {sign} what serving costs: {' and '.join(weighed)}" if weighed else ""
        lines.append(f"Value: the {metric.title}{costs}. The search goes by it.")
    if any(not score.complete for score in search_scores(contents).values()):
        lines.append("Given up: it could not become the best, or a rank left it behind; its numbers are of fewer folds.")

    return tuple(lines)


def _columns(contents: LedgerContents, priced: bool) -> list[str]:
    metric = contents.header.metric
    value = ", ".join(filter(None, ("value", metric.unit)))
    return [metric.heading, "deviation", *[value] * priced, *["added MACs"] * bool(contents.costs), "folds"]


def _table(
    contents: LedgerContents,
    objective: Objective,
    title: str,
    rows: Sequence[tuple[str, Subset, Score]],
    taken: GreedyStep | None,
    chosen: GreedyStep,
) -> Table:
    metric = contents.header.metric
    preference = make_preference(objective, lambda subset: contents.costs[subset], metric)
    priced = objective.needs_cost and all(subset in contents.costs for _, subset, _ in rows)
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in _columns(contents, priced):
        table.add_column(column, justify="right", no_wrap=True)
    worths = {subset: preference.value(subset, score.worth) if priced else score.worth for _, subset, score in rows}
    for name, subset, score in sorted(rows, key=lambda row: (not row[2].complete, -worths[row[1]])):
        mark = ">" if taken is not None and subset == taken.subset else " "
        answer = " [bold]*[/]" if subset == chosen.subset else ""
        cost = contents.costs.get(subset)
        table.add_row(
            f"{mark} {escape(name) or 'all of these' * bool(subset) or '(head only)'}{answer}",
            metric.text(score.mean, 2),
            metric.text(score.deviation, 2),
            *[metric.text(metric.worth(worths[subset]), 2)] * priced,
            *[human_macs(cost.macs) if cost else ""] * bool(contents.costs),
            f"{score.of}" if score.complete else f"{len(score.folds)} of {score.of}, given up",
        )
    return table


def _start_words(found: Selection) -> str:
    start = found.steps[0].subset
    return "Begins with all blocks" if start else "Begins with the head alone"


def _step_words(number: int, found: Selection, taken: GreedyStep | None) -> str:
    doing = "to add" if found.direction == "forward" else "to remove"
    what = f"{taken.block} is taken" if taken is not None else "none is taken"
    return f"Step {number}: blocks {doing}; {what}"
