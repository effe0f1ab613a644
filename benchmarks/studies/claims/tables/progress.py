"""What was run, what was not, and what it took."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.claims.plan import Estimator, Planned
from benchmarks.studies.claims.tables.source import Source, table


def section(source: Source, plan: Sequence[Planned], cores: int) -> str:
    """Return the section."""
    done = [source.entries[one.unit] for one in plan if one.unit in source.entries]
    busy = sum(entry.busy for entry in done)
    lacking = [one.unit.words for one in plan if one.unit not in source.entries]
    hours = sum(entry.core_s for entry in done) / 3600
    marked = (
        f" {busy} of them were measured on a busy machine: their accuracies count, and of their seconds those of the processor."
        if busy
        else ""
    )
    listed = "".join(f"- {words}\n" for words in lacking)
    rest = f"\nNot run:\n\n{listed}" if lacking else "\nEverything was run.\n"
    return (
        f"## What was run\n{len(done)} of {len(plan)} units, {hours:.2f} hours of a core.{marked}\n\n"
        f"{plan_table(source, plan, cores)}{rest}"
    )


def plan_table(source: Source, plan: Sequence[Planned], cores: int) -> str:
    """Return a row for each section in order: its units, those that are done, and what the others are likely to take."""
    estimator = Estimator(source.entries.values())
    rows, total = [], 0.0
    for section in dict.fromkeys(one.section for one in plan):
        units = [one.unit for one in plan if one.section == section]
        done = [source.entries[unit] for unit in units if unit in source.entries]
        spent = sum(entry.core_s for entry in done) / 3600
        left = sum(estimator.seconds(unit) for unit in units if unit not in source.entries) / 3600
        total += left
        rows.append(
            [
                section,
                str(len(units)),
                str(len(done)),
                f"{spent:.2f}",
                f"{left:.2f}",
                f"{left / cores:.2f}",
                f"{total / cores:.2f}",
            ]
        )
    each = f"hours of {cores} cores" if cores > 1 else "hours"
    head = [
        "section",
        "units",
        "done",
        "core hours they took",
        "core hours to go, estimated",
        f"{each} to go",
        f"{each} to go, summed up",
    ]
    return table(head, rows)
