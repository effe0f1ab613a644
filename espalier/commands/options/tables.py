"""The options of data that comes in a table: tasks of the kinds labels and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuning.data.tables import TableOptions


@dataclass(frozen=True)
class Tables:
    """Options of a task's kind, and of the table that its data comes in."""

    kind: Annotated[
        str,
        typer.Option(
            metavar="classes|labels|values",
            help="What the task answers. labels and values learn from a table: --data FILE.csv with a header, or FILE.jsonl. "
            "With parameters as in export: labels:thresholds=0.4, values:units=mm+kg. tune fit finds the thresholds that are not said "
            "where the table has the splits train, val and test.",
        ),
    ] = "classes"
    image_column: Annotated[str, typer.Option(metavar="NAME", help="Of a table: the image's path, relative to the table.")] = (
        "image"
    )
    label_column: Annotated[
        str, typer.Option(metavar="NAME", help="Of a table of labels: their names, separated by ; or |. JSON: a list.")
    ] = "labels"
    value_columns: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help='Of a table of values: a column each. Default: all but the image\'s; of JSON, the object "values" where there is one.',
        ),
    ] = ""

    split_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a table: which of train, val and test a row is of. Default: split, where there is one."
        ),
    ] = None

    @property
    def says_thresholds(self) -> bool:
        """Whether the kind comes with thresholds."""
        return "thresholds" in self.kind

    def options(self) -> TableOptions | None:
        """Return them as the data takes them; None for classes, which come in folders. Raises typer.BadParameter."""
        from contract.kinds.classes import Classes
        from contract.kinds.registry import parse_kind
        from tuning.data.tables import TableOptions

        try:
            kind = parse_kind(self.kind)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.", param_hint="--kind") from error
        if isinstance(kind, Classes):
            return None
        columns = tuple(name.strip() for name in self.value_columns.split(",") if name.strip())
        return TableOptions(kind, self.image_column, self.label_column, columns, self.split_column)
