"""Draws a repository for the terminal: the tree of trunk and branches, and tables of what everything costs."""

from __future__ import annotations

from collections import defaultdict

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from benchmarks.flops import separate_cost, shared_cost
from espalier.console import human_bytes, human_macs
from serving.plan import make_plan
from serving.repository import Repository, Segment

Place = tuple[str, tuple[str, ...]]  # a segment, and the tensors that it is applied to


def repository_tree(repository: Repository) -> Tree:
    """Return the tree from the image to the tasks: what hangs on one branch is computed once for all tasks below it."""
    plan = make_plan(repository, list(repository.tasks))
    children: dict[str, list[Place]] = defaultdict(list)
    results: dict[Place, tuple[str, ...]] = {}
    for step in plan.steps:
        for inputs, outputs in zip(step.inputs, step.outputs, strict=True):
            children[inputs[0]].append((step.segment, inputs))
            results[step.segment, inputs] = outputs
    tasks_at: dict[str, list[str]] = defaultdict(list)
    for output, tensor in plan.outputs.items():
        tasks_at[tensor].append(output)
    sources = next(iter(repository.tasks.values())).inputs
    tree = Tree(", ".join(f"[bold]{escape(spec.name)}[/] [dim]{spec.dtype} {list(spec.shape)}[/]" for spec in sources))
    streams = {step.segment: len(step.inputs) for step in plan.steps}
    for spec in sources:
        _grow(tree, spec.name, repository, children, results, tasks_at, streams)
    return tree


def _grow(
    tree: Tree,
    tensor: str,
    repository: Repository,
    children: dict[str, list[Place]],
    results: dict[Place, tuple[str, ...]],
    tasks_at: dict[str, list[str]],
    streams: dict[str, int],
) -> None:
    for output in tasks_at[tensor]:
        labels = repository.tasks[output].labels if output in repository.tasks else ()
        tree.add(f"[bold green]{escape(output)}[/] [dim]{_labels(labels)}[/]")
    for place in sorted(children[tensor], key=lambda place: repository.segments[place[0]].blocks, reverse=True):
        segment = repository.segments[place[0]]
        branch = tree.add(f"{_coloured(segment)}  {_describe(segment, streams.get(segment.name, 1))}")
        for result in results[place]:
            _grow(branch, result, repository, children, results, tasks_at, streams)


def segments_table(repository: Repository) -> Table:
    """Return one row per segment: its modules and cost for one row, and who uses it."""
    table = Table(title="Segments (cost of one row; GFLOPs = 2 x GMACs)", title_justify="left")
    for heading in ("segment", "modules", "MACs", "parameters", "weights", "output", "tasks"):
        numeric = heading in ("MACs", "parameters", "weights", "output")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold", min_width=7)
    uncounted: set[str] = set()
    for segment in sorted(repository.segments.values(), key=lambda segment: (segment.blocks, segment.name)):
        users = [task.name for task in repository.tasks.values() if segment.name in {step.segment for step in task.steps}]
        table.add_row(
            _coloured(segment),
            escape(_modules(segment.modules)),
            human_macs(segment.macs).removesuffix("MACs").strip(),
            f"{segment.parameters:,}",
            human_bytes(segment.weight_bytes),
            human_bytes(segment.activation_bytes),
            escape(", ".join(users)),
        )
        uncounted.update(segment.uncounted)
    table.caption = f"Not counted as MACs: {', '.join(sorted(uncounted)) or 'nothing'}"
    table.caption_justify = "left"
    return table


def savings_table(repository: Repository) -> Table:
    """Return what one request for all tasks costs, shared against separate networks."""
    names = list(repository.tasks)
    shared, separate = shared_cost(repository, names), separate_cost(repository, names)
    table = Table(title=f"One request for all {len(names)} tasks", title_justify="left")
    for heading in ("", "shared", "separate", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("MACs", human_macs(shared.macs), human_macs(separate.macs), f"{separate.macs / max(shared.macs, 1):.2f}x")
    weights = separate.weight_bytes / max(shared.weight_bytes, 1)
    table.add_row("weights", human_bytes(shared.weight_bytes), human_bytes(separate.weight_bytes), f"{weights:.2f}x")
    return table


def _coloured(segment: Segment) -> str:
    colour = "yellow" if segment.name.startswith("trunk-") else "cyan" if segment.name.startswith("shared-") else "magenta"
    return f"[{colour}]{escape(segment.name)}[/]"


def _describe(segment: Segment, streams: int) -> str:
    together = f", batch of {streams}" if streams > 1 else ""
    return f"[dim]{human_macs(segment.macs)}, {human_bytes(segment.weight_bytes)}{together}[/]"


def _modules(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
    return escape(shown)
