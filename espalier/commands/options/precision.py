"""The options of networks in int8, and what is said of what became of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from contract.units import percent
from espalier.console import console

if TYPE_CHECKING:
    from exporter.precision.examples import PrecisionOptions
    from exporter.precision.judge import Trial, Verdict
    from exporter.precision.report import PrecisionReport


@dataclass(frozen=True)
class Precise:
    """Options of the precision of tasks."""

    precision: Annotated[
        str | None,
        typer.Option(
            metavar="int8|fp32",
            help="int8: quantise the trunk, and behind it the branches, where that costs no task more than --max-drop. fp32: as the "
            "networks are. Default: fp32, but where a repository is in int8 you have to say.",
        ),
    ] = None
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]DATA",
            help="What int8 is calibrated with, and on other rows judged: a folder of images, in a folder per class or not; a data source "
            "as `espalier tune` takes it (digits:parity); or a .npy file of inputs. Repeat it for tasks with data of their own.",
        ),
    ] = None
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="The most that int8 may cost a task, of its accuracy, or where the data has no labels of its agreement with fp32. "
            "Default: 0.5%.",
        ),
    ] = None

    def options(self, tasks: Collection[str] | None = None) -> PrecisionOptions:
        """Return them as the exporter takes them. tasks: that come; None: any. Raises typer.BadParameter, ExportError."""
        if self.precision not in (None, "int8", "fp32"):
            raise typer.BadParameter(f"must be int8 or fp32, not {self.precision!r}.", param_hint="--precision")
        if self.max_drop is not None and self.precision != "int8":
            raise typer.BadParameter("is of use only with --precision int8.", param_hint="--max-drop")

        from exporter.precision.errors import NeedlessExamples
        from exporter.precision.examples import PrecisionOptions

        drop = 0.005 if self.max_drop is None else _parse_share(self.max_drop)
        precision = next((known for known in ("int8", "fp32") if known == self.precision), None)
        if self.calibration and precision != "int8":
            raise NeedlessExamples
        if not self.calibration:
            return PrecisionOptions(precision, max_drop=drop)

        from exporter.torch.calibration import CalibrationData

        data = CalibrationData(_parse_sources(self.calibration))
        if tasks is not None:
            data.check_tasks([*tasks])
        return PrecisionOptions(precision, data, drop)


def _parse_share(text: str) -> float:
    """Return "0.5%" or "0.005" as 0.005. Raises typer.BadParameter unless it is at least 0 and less than 1."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise typer.BadParameter(
            f"{text!r} is no share of the answers; give at least 0% and less than 100%, such as 0.5%.", param_hint="--max-drop"
        )
    return share


def _parse_sources(texts: Sequence[str]) -> dict[str | None, str]:
    """Return [TASK=]DATA as DATA by TASK, None where there is none. Raises typer.BadParameter for two of one task."""
    found: dict[str | None, str] = {}
    for text in texts:
        task, separator, source = text.partition("=")
        separator = "" if Path(text).exists() else separator  # the name of a file may have one
        name = task if separator else None
        if name in found:
            of = f"the task {name!r}" if name else "all tasks"
            raise typer.BadParameter(f"gives data for {of} twice.", param_hint="--calibration")
        found[name] = source if separator else text
    return found


def print_precision(report: PrecisionReport | None) -> None:
    """Print what became of tasks in int8: what was assumed, a table with a row for each, and what two precisions cost."""
    if report is None:
        return
    for remark in report.remarks:
        console.print(f"[yellow]Calibration:[/] {escape(remark)}", soft_wrap=True)
    if report.verdicts:
        console.print(_table(report))
    for verdict in report.verdicts:
        if verdict.reason:
            console.print(f"[yellow]{escape(verdict.task)}[/] is in {verdict.variant}: {escape(verdict.reason)}.", soft_wrap=True)
    if report.sharing:
        console.print(f"[yellow]Two precisions:[/] {escape(report.sharing)}", soft_wrap=True)


def _table(report: PrecisionReport) -> Table:
    table = Table(title=f"Tasks in int8 (at most {100 * report.max_drop:g} % may be lost)", title_justify="left")
    for heading in ("task", "judged by", "images", "fp32", "int8", "lost (95 % interval)", "is in"):
        table.add_column(heading, overflow="fold")
    for verdict in report.verdicts:
        for place, trial in enumerate(verdict.trials or (None,)):
            table.add_row(*_row(verdict, trial, first=place == 0))
    return table


def _row(verdict: Verdict, trial: Trial | None, *, first: bool) -> list[str]:
    about = [escape(verdict.task), escape(verdict.judged_by), str(verdict.images)] if first else ["", "", ""]
    if trial is None:
        return [*about, "", "", "", verdict.variant]
    before = "" if verdict.fp32 is None else f"{percent(verdict.fp32)} %"
    after = "" if trial.accuracy is None else f"{percent(trial.accuracy)} %"
    chosen = trial.variant if trial.variant == verdict.variant else f"not {trial.variant}"
    last = trial is verdict.trials[-1] and verdict.variant == "fp32"
    return [*about, before, after, _lost(trial), f"fp32 ({chosen})" if last else chosen]


def _lost(trial: Trial) -> str:
    if trial.interval is None:
        return f"{trial.drop:.2g} of the spread"
    low, high = trial.interval
    return f"{percent(trial.drop)} % ({percent(low)} to {percent(high)})"
