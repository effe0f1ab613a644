"""An exhaustive greedy search with every proxy of every candidate, and what its subsets reach on the test pictures.

{"ledger": packed, "finals": [{"subset", "test", "loss"}]}: the ledger has all folds of all candidates of every step, up to as many
blocks as the unit says, so that other rules and ranks are told from it; the finals are of every subset on the way, and of what costs
would choose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.studies.claims.bench import Bench, learnt_rows
from benchmarks.studies.claims.choice import chosen
from benchmarks.studies.claims.packed import pack, unpack
from benchmarks.studies.claims.unit import Unit
from tuning.data.labelled import TaskData
from tuning.search.greedy import StopRule
from tuning.search.replay import search_scores
from tuning.search.score import Objective, Subset
from tuning.search.search import SearchOptions, open_search
from tuning.training.features import FeatureStore
from tuning.training.methods import PROBE_FACTOR, linear_probe, subtuning
from tuning.training.trainer import Trainer


def measure(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Search; a search that was killed goes on where it was."""
    costs = bench.need(unit, Unit("costs")).result
    data = bench.drawn(unit)
    options = SearchOptions(len(bench.folds(data, unit.seed)), workers=bench.workers, race=False)
    with open_search(
        bench.backbone, data, bench.fit_options(unit.seed), options, bench.ledgers.scratch(unit, ".jsonl")
    ) as search:
        whole = search.select("forward", StopRule(-1.0, max_blocks=unit.blocks), Objective())
        search.trainings.measure_gradients()
        search.trainings.measure_epochs([subset for subset in search_scores(search.contents) if subset])
        packed = pack(search.contents)
    shares = dict(zip(costs["blocks"], costs["shares"], strict=True))
    weighed = chosen(unpack(packed, shares, costs["head"]), bench.settings, bench.settings.cost_weight).chosen.subset
    finals = [*(step.subset for step in whole.steps), weighed]
    return {"ledger": packed, "finals": list(_finals(bench, unit, data, dict.fromkeys(finals)))}


def _finals(bench: Bench, unit: Unit, data: TaskData, subsets: Iterable[Subset]) -> Iterable[dict[str, Any]]:
    """Yield what each subset reaches on the test pictures, having learnt from all of the others."""
    options = bench.fit_options(unit.seed)
    store = FeatureStore(options.cache_bytes)
    try:
        trainer, rows = Trainer(bench.backbone, data, options, store), learnt_rows(data)
        for subset in subsets:
            method = (
                subtuning(subset, options.epochs) if subset else linear_probe(options.epochs, PROBE_FACTOR * (options.lr or 0))
            )
            trained = trainer.run(trainer.prepare(method), rows)
            yield {"subset": list(subset), "test": trainer.accuracy(trained), "loss": round(trained.loss, 5)}
    finally:
        store.close()
