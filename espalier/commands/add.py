"""`espalier add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.inputs import Backbone, ImageSize, Mean, Preprocess, Std, Task, Tasks, input_options, open_inputs
from espalier.commands.rows import Coupled, print_remarks
from espalier.commands.scores import describe_scores
from espalier.commands.versions import describe_inherited
from espalier.console import console, human_macs, progress_bars, say


def add(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    task: Task = None,
    tasks: Tasks = None,
    backbone: Backbone = None,
    preprocess: Preprocess = "in-graph",
    image_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    recut: Annotated[
        bool, typer.Option("--recut", help="Divide segments that are there, where that lets the new tasks share more.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace tasks of the same names; the old ones are kept for a rollback.")
    ] = False,
    coupled: Coupled = False,
) -> None:
    """Add tasks to a repository. What is there stays as it is, down to the byte, unless --recut is given.

    The new tasks fork at the cuts that are there. A server that is running goes on with what it has loaded. For what MODEL may be,
    see `espalier export --help`.

    [dim]espalier add repo --backbone resnet50.a1_in1k --task birds=birds.safetensors[/]
    """
    inputs = input_options(preprocess, image_size, mean, std)

    from espalier.tree import repository_tree
    from exporter.extend import AddOptions, add_tasks

    with progress_bars() as report:
        sources = open_inputs(backbone, task, tasks, inputs)
        result = add_tasks(repo, sources, AddOptions(recut, replace, coupled=coupled), report, say)
    console.print(repository_tree(result.repository))
    for name, remark in result.remarks.items():
        console.print(f"[yellow]{escape(name)}[/] {escape(remark)}")
    print_remarks(result.row_remarks)
    for name, taken in result.inherited.items():
        console.print(f"[yellow]{escape(describe_inherited(result.before[name], taken))}[/]", soft_wrap=True)
    scores = describe_scores(result.repository.tasks[name] for name in sources.tasks)
    if scores:
        console.print(escape(scores), soft_wrap=True)
    for name, missed in result.missed.items():
        if missed.blocks:
            console.print(
                f"[yellow]{escape(name)}[/] computes {missed.blocks} blocks ({human_macs(missed.macs)} a request) itself that it has in "
                "common with others, because there is no cut after them; --recut makes one."
            )
    console.print(
        f"Added {escape(', '.join(sources.tasks))}: {len(result.new)} new segments, {len(result.kept)} kept as they were."
    )
