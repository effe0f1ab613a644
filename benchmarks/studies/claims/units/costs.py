"""What serving a task adds, by the block that is tuned: {"blocks": names, "shares": of the backbone's MACs, "head": of the head alone}.

A task leaves the trunk before its first tuned block, and everything behind it runs anew, so that the first block decides.
"""

from __future__ import annotations

from typing import Any

from benchmarks.studies.claims.bench import Bench
from benchmarks.studies.claims.unit import Unit
from exporter.pricing.torch import open_pricing

_CLASSES = 9


def measure(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Price a task for each block."""
    pricing = open_pricing(bench.backbone, None, classes=_CLASSES, measure=None)
    prices = {block: pricing.price((block,)) for block in bench.backbone.blocks}
    return {
        "blocks": list(bench.backbone.blocks),
        "shares": [round(prices[block].macs / pricing.macs, 5) for block in bench.backbone.blocks],
        "head": round(pricing.price(()).macs / pricing.macs, 5),
        "weight_bytes": [prices[block].weight_bytes for block in bench.backbone.blocks],
    }
