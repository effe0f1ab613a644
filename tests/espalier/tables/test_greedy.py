"""The steps of a greedy search as tables."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from espalier.tables.greedy import describe_columns, steps_tables
from tests.espalier.figures.ledgers.ledgers import RESNET18, greedy, make_header
from tuning.search.greedy import Direction, StopRule
from tuning.search.replay import noted_selections, search_scores
from tuning.search.score import Objective


def shown(table: Table) -> str:
    console = Console(width=160, file=StringIO())
    console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_every_candidate_of_every_step_is_there_with_its_deviation(direction: Direction) -> None:
    objective = Objective(0.02)
    contents = greedy(make_header(RESNET18), direction, StopRule(0.002), objective)
    (noted,) = noted_selections(contents)
    tables, scores = steps_tables(noted.selection, contents, objective), search_scores(contents)
    rows = [row for table in tables for row in shown(table).splitlines()]
    for score in scores.values():
        assert any(score.metric.text(score.mean, 2) in row and score.metric.text(score.deviation, 2) in row for row in rows)
    assert sum(table.row_count for table in tables) == len(scores)
    assert sum(row.lstrip().startswith(">") for row in rows) == len(noted.selection.steps) - 1
    assert "value, %" in shown(tables[1])
    value = contents.header.metric.text(noted.selection.chosen.value, 2)
    assert sum(" * " in row and value in row for row in rows) == 1


def test_columns_are_said() -> None:
    objective = Objective(0.02)
    contents = greedy(make_header(RESNET18), objective=objective)
    sentences = describe_columns(noted_selections(contents)[0].selection, contents, objective)
    assert sentences[0].startswith(
        "Accuracy: the mean over 5 folds of the training images, with the standard deviation; more is better."
    )
    assert sentences[1] == (
        "Value: the accuracy less what serving costs: 2.00 % x its share of the backbone's MACs. The search goes by it."
    )
    assert len(describe_columns(noted_selections(contents)[0].selection, contents, Objective())) == 1
