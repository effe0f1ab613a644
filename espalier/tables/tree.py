"""Draws a repository for the terminal: the tree of trunk and branches, and tables of what everything costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from contract.kinds.classes import Classes
from contract.repository import Repository, Segment, TensorSpec
from contract.repository.unite import united_inputs
from contract.units import human_bytes, human_count, human_macs
from espalier.figures.repository.flow import Flow, compare_costs, make_flow

_COSTS = ("MACs", "parameters", "weights", "output")
_MOST_NAMES = 6  # of the tasks that use a segment


@dataclass(frozen=True)
class _Branch:
    """What hangs on a tensor: a segment, what it gives, and where else it takes something from."""

    segment: str
    outputs: tuple[str, ...]
    streams: int
    also_from: tuple[str, ...]


@dataclass(frozen=True)
class _Branches:
    """Per tensor the branches that hang on it and the outputs that it is."""

    at: dict[str, list[_Branch]]
    outputs_at: dict[str, list[str]]


def repository_tree(repository: Repository) -> Tree:
    """Return the tree from the inputs to the tasks: what hangs on one branch is computed once for all tasks below it.

    What takes several tensors hangs on the one that is made last and names where the others come from.
    """
    flow = make_flow(repository)
    sources = united_inputs(repository.tasks.values()) or ()
    tree = Tree(", ".join(f"[bold]{escape(spec.name)}[/] [dim]{spec.dtype} {_shape(spec)}[/]" for spec in sources))
    branches = _branches(flow)
    for tensor in flow.inputs:
        _grow(tree, tensor, repository, branches)
    return tree


def _branches(flow: Flow) -> _Branches:
    found = _Branches(defaultdict(list), defaultdict(list))
    maker = {name: name for name in flow.inputs}
    for run in flow.runs:
        known = list(maker)
        for stream in run.streams:
            on, *others = sorted(dict.fromkeys(stream.inputs), key=known.index, reverse=True)
            also = tuple(maker[tensor] for tensor in reversed(others))
            found.at[on].append(_Branch(run.segment, stream.outputs, len(run.streams), also))
            maker.update(dict.fromkeys(stream.outputs, run.segment))
    for output, tensor in flow.outputs.items():
        found.outputs_at[tensor].append(output)
    return found


def _grow(tree: Tree, tensor: str, repository: Repository, branches: _Branches) -> None:
    for output in branches.outputs_at[tensor]:
        tree.add(f"[bold green]{escape(output)}[/] [dim]{_output(repository, output)}[/]")
    for branch in sorted(branches.at[tensor], key=lambda branch: repository.segments[branch.segment].blocks, reverse=True):
        segment = repository.segments[branch.segment]
        child = tree.add(f"{_coloured(segment)}  {_describe(segment, branch)}")
        for result in branch.outputs:
            _grow(child, result, repository, branches)


def other_models(repository: Repository) -> Iterator[str]:
    """Yield a line for each model that espalier did not export, and for each that cannot be served."""
    for task in repository.tasks.values():
        if task.plain is not None:
            takes, gives = (_tensors(specs, task.plain.has_rows) for specs in (task.inputs, task.outputs))
            described = escape(f"{task.plain.file}: {takes} -> {gives}")
            yield f"[bold green]{escape(task.name)}[/]  {described} [dim]({task.answers.word()}, over v2 alone; shares nothing)[/]"
    for name, reason in repository.unserved.items():
        yield f"[bold]{escape(name)}[/]  is not served: {escape(reason)}"


def _tensors(specs: Iterable[TensorSpec], has_rows: bool) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {[*([-1] if has_rows else []), *spec.shape]}" for spec in specs)


def segments_table(repository: Repository) -> Table:
    """Return one row per segment: its modules and cost for one row, and who uses it."""
    title = f"Segments (cost of one row{_reference(repository)}; GFLOPs = 2 x GMACs)"
    table = Table(title=escape(title), title_justify="left")
    quantised = any(segment.precision != "fp32" for segment in repository.segments.values())
    for heading in ("segment", "modules", *(["precision"] if quantised else []), *_COSTS, "tasks"):
        numeric = heading in _COSTS
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold", min_width=7)
    uncounted: set[str] = set()
    for segment in sorted(repository.segments.values(), key=lambda segment: (segment.blocks, segment.name)):
        users = [task.name for task in repository.tasks.values() if segment.name in {step.segment for step in task.steps}]
        table.add_row(
            _coloured(segment),
            escape(_modules(segment)),
            *([segment.precision] if quantised else []),
            human_count(segment.macs),
            f"{segment.parameters:,}",
            human_bytes(segment.weight_bytes),
            human_bytes(segment.activation_bytes),
            escape(_users(users, len(repository.tasks))),
        )
        uncounted.update(segment.uncounted)
    table.caption = escape(f"Not counted as MACs: {', '.join(sorted(uncounted)) or 'nothing'}")
    table.caption_justify = "left"
    return table


def cuts_table(repository: Repository) -> Table:
    """Return why there is a cut in front of each segment, and below it the cuts that were left out."""
    table = Table(title="Cuts, and why", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    explained: dict[str, list[str]] = defaultdict(list)
    for segment in sorted(repository.segments.values(), key=lambda segment: (segment.blocks, segment.name)):
        explained[segment.reason].append(_coloured(segment))
    for reason, names in explained.items():
        if reason:
            table.add_row("\n".join(names), escape(reason))
    for sentence in repository.cuts_left_out:
        table.add_row("[dim]no cut[/]", escape(sentence))
    return table


def savings_table(repository: Repository) -> Table:
    """Return what one request for 1, 2, 4, ... and all tasks costs, shared against separate networks."""
    table = Table(title="One request for N tasks against N networks", title_justify="left")
    for heading in ("N", "MACs", "separate", "ratio", "weights", "separate", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for shared, separate in compare_costs(repository):
        table.add_row(
            str(shared.tasks),
            human_count(round(shared.macs)),
            human_count(round(separate.macs)),
            _ratio(separate.macs, shared.macs),
            human_bytes(round(shared.weight_bytes)),
            human_bytes(round(separate.weight_bytes)),
            _ratio(separate.weight_bytes, shared.weight_bytes),
        )
    table.caption = "mean over all choices of N tasks" if len(repository.tasks) > 1 else None
    table.caption_justify = "left"
    return table


def _ratio(separate: float, shared: float) -> str:
    return f"{separate / shared:.2f}x" if shared else "-"


def _coloured(segment: Segment) -> str:
    colour = "yellow" if segment.name.startswith("trunk-") else "cyan" if segment.name.startswith("shared-") else "magenta"
    return f"[{colour}]{escape(segment.name)}[/]"


def _describe(segment: Segment, branch: _Branch) -> str:
    together = f", batch of {branch.streams}" if branch.streams > 1 else ""
    also = f", also takes {escape(' and '.join(dict.fromkeys(branch.also_from)))}" if branch.also_from else ""
    precision = "" if segment.precision == "fp32" else f", {segment.precision}"
    return f"[dim]{human_macs(segment.macs)}, {human_bytes(segment.weight_bytes)}{precision}{together}{also}[/]"


def _modules(segment: Segment) -> str:
    names = segment.modules
    if not names:
        first, last = segment.blocks
        return f"block {first}" if first == last else f"blocks {first} ... {last}"
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"


def _users(tasks: list[str], number: int) -> str:
    if len(tasks) == number > 1:
        return f"all {number}"
    return ", ".join(tasks[:_MOST_NAMES]) + (f", ... ({len(tasks)})" if len(tasks) > _MOST_NAMES else "")


def _output(repository: Repository, output: str) -> str:
    """Return the first labels of a task, or the type and shape of an output without labels."""
    task = repository.tasks.get(output)
    labels = task.labels if task is not None else ()
    if task is not None and task.kind is not None and not isinstance(task.kind, Classes):
        return escape(f"{task.kind.word()} of {_first(labels)}" if labels else task.kind.word())
    if labels:
        return escape(_first(labels))
    spec = next(spec for task in repository.tasks.values() for spec in task.outputs if spec.name == output)
    return f"{spec.dtype} {_shape(spec)}"


def _first(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")


def _shape(spec: TensorSpec) -> str:
    return escape(f"[{', '.join(map(str, spec.named_shape))}]")


def _reference(repository: Repository) -> str:
    """Return at which free sizes costs are stated; "" where there are none."""
    taken = {name: task.sizes[name] for task in repository.tasks.values() for spec in task.inputs for name in spec.axes if name}
    return f", at {', '.join(f'{name} {size.reference}' for name, size in sorted(taken.items()))}" if taken else ""
