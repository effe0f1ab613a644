"""What serving a subset costs, from the exporter to the search: tuning knows nothing of the exporter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from espalier.console import console

if TYPE_CHECKING:
    from tuning.network.backbone import Backbone
    from tuning.search.score import CostOf, SubsetCost


def open_costs(backbone: Backbone, given: Path | None, classes: int, latency: bool) -> CostOf:
    """Return the cost of every subset for a task of `classes` classes, as a function that remembers. latency: measured, too.

    given: a repository that the task would be added to; None: the backbone alone is served. The network is exported once, now.
    """
    from espalier.commands.tune.latency import measure_ms
    from exporter.pricing.torch import open_pricing
    from tuning.search.score import SubsetCost

    with console.status("Exporting the backbone, to price subsets"):
        pricing = open_pricing(backbone, given, classes=classes, measure=measure_ms if latency else None)
    whole_bytes = sum(tensor.nbytes for tensor in backbone.network.parameters())
    known: dict[tuple[str, ...], SubsetCost] = {}

    def cost(subset: tuple[str, ...]) -> SubsetCost:
        if subset not in known:
            added = pricing.price(subset)
            shares = (added.macs / pricing.macs, added.weight_bytes / whole_bytes)
            known[subset] = SubsetCost(added.macs, added.weight_bytes, *shares, added.latency_ms, added.fork)
        return known[subset]

    return cost
