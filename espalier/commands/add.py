"""`espalier add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.commands.options.cuts import RecutRule, recut_options
from espalier.commands.options.groups import ungroup
from espalier.commands.options.precision import Precise, print_precision
from espalier.commands.options.reports import (
    describe_inherited,
    print_answers,
    print_missed,
    print_not_shared,
    print_remarks,
    print_snap,
    print_stored,
    print_texts,
)
from espalier.commands.options.task_models import Coupled, Inputs, Snap, TaskModels
from espalier.console import console, loading, progress_bars, say

if TYPE_CHECKING:
    from exporter.add import AddReport


@ungroup
def add(
    *,
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    models: TaskModels,
    inputs: Inputs,
    recut: Annotated[
        bool, typer.Option("--recut", help="Cut all tasks anew, as an export of them would; without a task, only that.")
    ] = False,
    cuts: RecutRule = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace tasks of the same names; the old ones are kept for a rollback.")
    ] = False,
    coupled: Coupled = False,
    snap: Snap = None,
    precise: Precise,
) -> None:
    """Add tasks to a repository. What is there stays as it is, down to the byte, unless --recut is given.

    The new tasks fork at the cuts that are there. A server that is running goes on with what it has loaded. For what MODEL may be,
    see `espalier export --help`. With --recut, segments that are there are divided and joined where that makes all tasks cheaper;
    what no task uses any more stays until `espalier gc`.

    [dim]espalier add repo --task birds=birds.safetensors[/]
    """
    with loading():
        images = inputs.options()
        options = recut_options(recut, cuts)

        from espalier.tables.tree import repository_tree
        from exporter.add import AddOptions, add_tasks

    with progress_bars() as report:
        sources = models.open(images, repo)
        precision = precise.options(None if recut else sources.tasks)
        asked = AddOptions(recut, replace, cuts=options, coupled=coupled, snap=snap, precision=precision)
        result = add_tasks(repo, sources, asked, report, say)
    console.print(repository_tree(result.repository))
    for name, remark in result.remarks.items():
        console.print(f"[yellow]{escape(name)}[/] {escape(remark)}")
    print_remarks(result.row_remarks)
    print_snap(result)
    print_texts(result.repository.tasks[name] for name in sources.tasks)
    for name, taken in result.inherited.items():
        console.print(f"[yellow]{escape(describe_inherited(result.before[name], taken))}[/]", soft_wrap=True)
    print_answers([result.repository.tasks[name] for name in sources.tasks])
    print_missed(repo, result.missed)
    if result.plan.several_shapes:
        console.print(f"[yellow]Several shapes:[/] {escape(result.plan.several_shapes)}", soft_wrap=True)
    print_not_shared(one for one in result.repository.not_shared if recut or not sources.tasks.keys().isdisjoint(one.tasks))
    print_stored(result.repository, result.stored)
    print_precision(result.precision)
    if sources.tasks:
        console.print(f"Added {escape(', '.join(sources.tasks))}: {_segments(result)}.", soft_wrap=True)
    if recut:
        console.print(_describe_recut(result), soft_wrap=True)


def _segments(result: AddReport) -> str:
    return f"{len(result.new)} new {'segment' if len(result.new) == 1 else 'segments'}, {len(result.kept)} kept as they were"


def _describe_recut(result: AddReport) -> str:
    """Return what became of the segments that were there."""
    from exporter.gc import unused_segments

    path = escape(str(result.repository.path))
    by = f"by the rule {result.repository.cut_rule!r}"
    pairs = [(task, result.repository.tasks[name]) for name, task in result.before.items()]
    changed = [old.name for old, new in pairs if old.version == new.version and old.steps != new.steps]
    if changed:
        said = f"Cut {escape(', '.join(changed))} anew {by}: {_segments(result)}."
    else:
        said = f"Every cut is where an export {by} makes it: nothing was cut anew."
    unused = len(unused_segments(result.repository))
    return f"{said} No task uses {unused} of the segments; `espalier gc {path}` removes them." if unused else said
