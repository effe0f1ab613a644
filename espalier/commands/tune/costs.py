"""`espalier tune costs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import human_bytes, human_count, human_macs
from espalier.commands.options.tune import BackboneOption, Weights, write_json
from espalier.console import Report, console, loading, progress_bars

if TYPE_CHECKING:
    from exporter.pricing.price import AddedCost, Pricing
    from tuning.network.backbone import Backbone


@dataclass(frozen=True)
class _Row:
    """What tuning one block costs. block: None for a new head alone. macs: of the block itself, None where it is not told apart."""

    block: str | None
    parameters: int
    macs: int | None
    added: AddedCost


def costs(
    *,
    backbone: BackboneOption,
    weights: Weights,
    given: Annotated[
        Path | None,
        typer.Option(
            "--given",
            metavar="REPO",
            help="A repository of tasks on this backbone: what a task more costs beside them, added to it.",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs of the new head; by default as many as the backbone's own has.")
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure how long the part after the fork takes here, for one image.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON, too.")] = None,
) -> None:
    """Show what serving a task would cost, by the block that is tuned for it. Nothing is trained.

    A task is served from its fork on: everything behind the first tuned block is computed for it alone. The new head always is.

    [dim]espalier tune costs --backbone resnet50.a1_in1k --given repo --classes 37[/]
    """
    with loading():
        from espalier.commands.tune.pricing import measure_ms
        from exporter.pricing.torch import open_pricing

    if json_file is not None and not json_file.parent.is_dir():
        raise typer.BadParameter(f"the folder {json_file.parent} does not exist.", param_hint="--json")
    loaded = weights.open(backbone)
    with console.status("Exporting the backbone"):
        pricing = open_pricing(loaded, given, classes=classes, measure=measure_ms if latency else None)
    with progress_bars() as report:
        rows = list(_rows(loaded, pricing, classes or loaded.spec.num_classes, report))
    console.print(_table(rows, pricing.macs, latency))
    beside = f"the tasks of {given}" if given else "the backbone alone"
    console.print(
        f"What a task adds to one request for all and to the stored weights, beside {escape(beside)}; share: of the whole network's "
        f"{human_macs(pricing.macs)}; one multiply-add is one MAC.",
        soft_wrap=True,
    )
    if json_file is not None:
        repository = None if given is None else str(given)
        about = {"backbone": loaded.spec.name, "given": repository, "macs": pricing.macs}
        write_json(json_file, {**about, "rows": [asdict(row) for row in rows]})


def _rows(backbone: Backbone, pricing: Pricing, classes: int, report: Report) -> Iterator[_Row]:
    blocks = backbone.blocks
    yield _Row(None, _parameters(backbone, backbone.head) // backbone.spec.num_classes * classes, None, pricing.price())
    for index, block in enumerate(blocks):
        report("Pricing blocks", index, len(blocks))
        yield _Row(block, _parameters(backbone, [block]), pricing.own_macs(block), pricing.price([block]))
    report("Pricing blocks", len(blocks), len(blocks))


def _parameters(backbone: Backbone, modules: Sequence[str]) -> int:
    return sum(tensor.numel() for module in modules for tensor in backbone.network.get_submodule(module).parameters())


def _table(rows: Sequence[_Row], whole_macs: int, latency: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("tuned", "forks after"):
        table.add_column(column, no_wrap=True)
    for column in ("parameters", "MACs", "added\nMACs", "share", "added\nweights", *(["added\nms"] if latency else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        added = row.added
        table.add_row(
            escape(row.block or "(head only)"),
            escape(added.fork or "(nothing)"),
            f"{row.parameters:,}",
            human_count(row.macs) if row.macs is not None else "",
            human_count(added.macs),
            f"{added.macs / whole_macs:.1%}",
            human_bytes(added.weight_bytes),
            *([f"{added.latency_ms:.2f}"] if added.latency_ms is not None else []),
        )
    return table
