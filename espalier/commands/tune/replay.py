"""`espalier tune replay`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier.commands.tune.greedy import Direction, Meaning
from espalier.console import console


def replay(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger of a search.")],
    direction: Annotated[
        Direction | None,
        typer.Option(help="forward: from the head alone, the default; backward: from all blocks; both: the better of the two."),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(metavar="X[,X...]", help="Stopping rules to answer, in units of the metric; default 0.005 of shares."),
    ] = None,
    meaning: Annotated[
        Meaning | None,
        typer.Option(
            help="Of epsilon. gain: the least that a block must be worth, the default; drop: the most to be worse than the best."
        ),
    ] = None,
    max_blocks: Annotated[int | None, typer.Option(min=0, help="The most blocks to choose.")] = None,
    cost_weight: Annotated[
        float | None, typer.Option(min=0, help="How much of the metric (accuracy: 0 to 1) all of the backbone's MACs are worth.")
    ] = None,
    bytes_weight: Annotated[
        float | None, typer.Option(min=0, help="How much of the metric all of the backbone's weight bytes are worth.")
    ] = None,
    latency_budget_ms: Annotated[float | None, typer.Option(min=0, help="The most milliseconds that serving may add.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the answers as JSON, too.")] = None,
) -> None:
    """Say what other stopping rules would choose, from the ledger of a search, without training. Without options: sum the ledger up.

    [dim]espalier tune replay search.jsonl --epsilon 0.001,0.005,0.02[/]
    """
    from espalier.figures.ledgers.source import open_source
    from espalier.tables.ledger import answers, answers_data, answers_table, summary, summary_tables, what_lacks
    from tuning.search.greedy import StopRule
    from tuning.search.score import Objective

    source = open_source(ledger)
    epsilons = _parse_numbers(epsilon) if epsilon is not None else (source.contents.header.metric.epsilon,)
    facts = summary(source)
    data: dict[str, Any] = {"ledger": str(ledger), "summary": facts}
    asked = (direction, epsilon, meaning, max_blocks, cost_weight, bytes_weight, latency_budget_ms)
    if all(option is None for option in asked):
        tables = summary_tables(source, facts)
        lacks = []
    else:
        objective = Objective(cost_weight or 0.0, bytes_weight or 0.0, latency_budget_ms)
        rules = [StopRule(value, (meaning or Meaning.GAIN).value, max_blocks) for value in epsilons]
        found = answers(source, (direction or Direction.FORWARD).value, rules, objective)
        tables = (answers_table(source, found, objective),)
        lacks = what_lacks(found)
        data["answers"] = answers_data(source, found)
    if json_file is not None:
        _write_json(json_file, data)
    for table in tables:
        console.print(table)
    for sentence in lacks:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def _parse_numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{text!r} is no number, nor numbers separated by commas.", param_hint="--epsilon")
    return numbers


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from tuning.errors import CannotWrite

    try:
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(path, error.strerror or str(error)) from error
