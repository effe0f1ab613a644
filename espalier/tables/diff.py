"""Shows what differs between two networks: a table, a sentence, and data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import percent
from exporter.diff.diff import BlockDiff, NetworkDiff
from exporter.diff.weight_diff import WeightDiff

_BAR = 8  # characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def diff_table(diff: NetworkDiff, shown: Sequence[BlockDiff], weights: bool = False) -> Table:
    """Return one row for each block in `shown`, and with `weights` one for each weight of a block that differs."""
    table = Table(title=escape(f"{diff.chain.name} -> {diff.other.name}"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("block", "modules", "parameters", "relative norm", "", "largest change", "weights changed"):
        numeric = heading in ("parameters", "relative norm", "largest change")
        width = max(map(len, heading.split()), default=_BAR)  # no word is broken in 80 columns
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", min_width=width)
    most = max((norm for block in diff.blocks if (norm := block.relative_norm) is not None and isfinite(norm)), default=0.0)
    for block in shown:
        table.add_row(
            _number(block),
            escape(", ".join(block.names)),
            f"{block.parameters:,}",
            _figure(block.relative_norm),
            f"[cyan]{bar(block.relative_norm, most)}[/]",
            _figure(block.largest_change),
            _note(block),
        )
        for weight in block.weights if weights else ():
            table.add_row("", f"[dim]{escape(weight.name)}[/]", *_weight_cells(weight))
    table.caption = "relative norm: ||b - a|| / ||a|| of the canonical weights (BatchNorm is folded)"
    table.caption_justify = "left"
    return table


def summary(diff: NetworkDiff) -> str:
    """Return what differs as a sentence."""
    equal, ours, theirs = len(diff.blocks) - len(diff.differing), len(diff.chain.blocks), len(diff.other.blocks)
    total = f"{ours}" if ours == theirs else f"{ours} and {theirs}"
    if not diff.differing:
        return f"All {total} blocks are equal; the networks compute the same."
    differing = _enumerate([_title(block) for block in diff.differing])
    verb = "differs" if len(diff.differing) == 1 else "differ"
    return (
        f"{equal} of {total} blocks are equal; {differing} {verb}; "
        f"the networks share {_percent(diff.shared_part)} of their computation from the input on.{_first_operator(diff)}{_nearly(diff)}"
    )


def _nearly(diff: NetworkDiff) -> str:
    """Return which blocks are nearly equal, and how near, in a sentence that goes on after another; "" if none is."""
    if not diff.near:
        return ""
    most = max(block.relative_change or 0.0 for block in diff.near)
    verb = "is" if len(diff.near) == 1 else "are"
    return (
        f" {_enumerate([_title(block) for block in diff.near])} {verb} nearly equal: no weight differs by more than {most:.1e} of the "
        "largest in its tensor, as rounding leaves them."
    )


def _first_operator(diff: NetworkDiff) -> str:
    """Return by which operator the networks differ first, in a sentence that goes on after another; "" if by weights alone."""
    first = next(
        (block for block in diff.differing if block.difference and all(w.changed is not None for w in block.weights)), None
    )
    return f" By operators, {_title(first)} differs first: {first.difference}." if first is not None else ""


def as_data(diff: NetworkDiff) -> dict[str, Any]:
    """Return everything as JSON can hold it: what is no number (undefined, infinite) is null."""
    return {
        "a": {"name": diff.chain.name, "blocks": len(diff.chain.blocks), "macs": diff.chain.macs},
        "b": {"name": diff.other.name, "blocks": len(diff.other.blocks), "macs": diff.other.macs},
        "equal_blocks": len(diff.blocks) - len(diff.differing),
        "shared_macs": diff.shared_macs,
        "shared_part": diff.shared_part,
        "remarks": list(diff.remarks),
        "blocks": [_block_data(block) for block in diff.blocks],
    }


def bar(value: float | None, most: float) -> str:
    """Return a bar that is full at `most`; at least a thin line for what is not zero."""
    if not value or not isfinite(value) or not most:
        return ""
    full, rest = divmod(max(1, round(value / most * _BAR * 8)), 8)
    return "█" * full + _EIGHTHS[rest].strip()


def _block_data(block: BlockDiff) -> dict[str, Any]:
    return {
        "kind": block.kind,
        "a": None if block.block is None else block.block.index,
        "b": None if block.other is None else block.other.index,
        "modules": list(block.names),
        "difference": block.difference,
        "parameters": block.parameters,
        "relative_norm": _number_or_none(block.relative_norm),
        "largest_change": _number_or_none(block.largest_change),
        "relative_change": _number_or_none(block.relative_change),
        "weights_changed": block.changed_weights,
        "weights": [_weight_data(weight) for weight in block.weights],
    }


def _weight_data(weight: WeightDiff) -> dict[str, Any]:
    return {
        "name": weight.name,
        "shape": list(weight.shape),
        "other_shape": list(weight.other_shape),
        "numbers_changed": weight.changed,
        "relative_norm": _number_or_none(weight.relative_norm),
        "largest_change": _number_or_none(weight.largest_change),
        "relative_change": _number_or_none(weight.relative_change),
    }


def _number_or_none(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _number(block: BlockDiff) -> str:
    indices = [str(side.index) if side is not None else "-" for side in (block.block, block.other)]
    return indices[0] if indices[0] == indices[1] else " / ".join(indices)


def _note(block: BlockDiff) -> str:
    resized = [weight for weight in block.weights if weight.changed is None]
    if block.kind == "replaced":
        return "[yellow]other operators[/]"
    if block.kind in ("removed", "added"):
        return f"[yellow]only in {'A' if block.kind == 'removed' else 'B'}[/]"
    if resized:
        return f"[yellow]{escape(_sizes(resized[0]))}[/]"
    if block.kind == "altered":
        return "[yellow]other attributes or integer constants[/]"
    return f"{block.changed_weights} of {len(block.weights)}" if block.weights else "equal"


def _weight_cells(weight: WeightDiff) -> tuple[str, ...]:
    changed = escape(_sizes(weight)) if weight.changed is None else f"{weight.changed:,} of {weight.numbers:,}"
    cells = ("", _figure(weight.relative_norm), "", _figure(weight.largest_change), changed)
    return tuple(f"[dim]{cell}[/]" for cell in cells)


def _sizes(weight: WeightDiff) -> str:
    return f"{list(weight.shape)} -> {list(weight.other_shape)}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _title(block: BlockDiff) -> str:
    return block.names[0] if len(block.names) == 1 else f"{block.names[0]} ... {block.names[-1]}"


def _enumerate(names: list[str]) -> str:
    if len(names) > 6:
        names = [*names[:3], f"{len(names) - 4} more", names[-1]]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _percent(part: float) -> str:
    """Return `part` as a percentage; what is nearly all or nearly nothing is not rounded to it."""
    text = percent(part, 0)
    return (
        f"{100 * part:.2g} %" if text == "0" and part else f"{percent(part, 2)} %" if text == "100" and part < 1 else f"{text} %"
    )
