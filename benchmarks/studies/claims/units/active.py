"""Labels that are asked for by the lowest margin beside labels at random, in rounds: {"labels": [...], "margin": [...], "random": [...]}.

Accuracies on the test pictures. What is tuned is the best single block of the search with as many pictures as the first round has.
"""

from __future__ import annotations

from typing import Any

from benchmarks.studies.claims.bench import Bench
from benchmarks.studies.claims.choice import chosen, search_of
from benchmarks.studies.claims.packed import unpack
from benchmarks.studies.claims.unit import Unit
from tuning.active.margin import STRATEGIES, active_learning
from tuning.training.features import FeatureStore
from tuning.training.methods import subtuning
from tuning.training.trainer import Trainer

_GROWTH = (1, 2, 4, 8)  # rounds, in first rounds


def measure(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Run the rounds of both strategies."""
    contents = unpack(bench.need(unit, search_of(unit, unit.blocks)).result["ledger"])
    block = chosen(contents, bench.settings, epsilon=-1.0).steps[1].subset
    data, options = bench.whole(unit.task), bench.fit_options(unit.seed)
    sizes = [unit.images * times for times in _GROWTH if unit.images * times <= len(data.train)]
    store = FeatureStore(options.cache_bytes)
    try:
        trainer, method = Trainer(bench.backbone, data, options, store), subtuning(block, options.epochs)
        rounds = {strategy: active_learning(trainer, method, sizes, unit.seed, strategy) for strategy in STRATEGIES}
    finally:
        store.close()
    reached: dict[str, Any] = {strategy: [one.test_accuracy for one in found] for strategy, found in rounds.items()}
    return {"labels": sizes, "blocks": list(block)} | reached
