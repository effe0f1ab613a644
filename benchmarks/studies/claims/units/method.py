"""A way to adapt the network, every choice made by folds of the same few pictures, measured once on the test pictures.

{"test", "lr", "subset", "variant", "choosing": effort, "final": effort}; an effort is trainings, epochs, macs, seconds, processor_s.
SubTuning takes its blocks from the search of the same task, size and seed, whose effort is in that entry.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from benchmarks.studies.claims.bench import Bench, learnt_rows
from benchmarks.studies.claims.choice import chosen, search_of
from benchmarks.studies.claims.packed import unpack
from benchmarks.studies.claims.unit import METHODS, SUBTUNING, Unit
from tuning.data.folds import Fold, Rows
from tuning.errors import BadOptions
from tuning.search.evaluate import Evaluator, TrainingJob
from tuning.search.ledger import Trial, open_ledger
from tuning.search.rank_replay import Effort
from tuning.search.search import make_header
from tuning.training.features import FeatureStore
from tuning.training.methods import BASELINES, PROBE_FACTOR, Method, subtuning
from tuning.training.trainer import Trainer


def measure(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Choose, train, and measure; what was killed goes on where it was."""
    data, options = bench.drawn(unit), bench.fit_options(unit.seed)
    folds, rows = bench.folds(data, unit.seed), learnt_rows(data)
    candidates = _with_rates(bench, _variants(bench, unit))
    header = make_header(bench.backbone, data, options, 0)
    store = FeatureStore(options.cache_bytes)
    try:
        with open_ledger(bench.ledgers.scratch(unit, ".jsonl"), header) as ledger:
            evaluator = Evaluator(Trainer(bench.backbone, data, options, store), ledger, bench.workers)
            best = _choose(evaluator, candidates, folds, unit.seed)
            final = _train(evaluator, best, rows, unit.seed)
            return _result(best, final, ledger.contents.trials)
    finally:
        store.close()


def _variants(bench: Bench, unit: Unit) -> tuple[Method, ...]:
    epochs = bench.settings.epochs
    if unit.method in BASELINES:
        return BASELINES[unit.method](bench.backbone.network, epochs)
    if unit.method not in SUBTUNING:
        raise BadOptions(f"Unknown method {unit.method!r}; known are: {', '.join(METHODS)}.")
    contents = unpack(bench.need(unit, search_of(unit, unit.blocks)).result["ledger"])
    way = chosen(contents, bench.settings, epsilon=-1.0)
    subset = way.steps[1].subset if unit.method == SUBTUNING[1] else chosen(contents, bench.settings).chosen.subset
    return (subtuning(subset, epochs, siamese=unit.method == SUBTUNING[2]),)


def _with_rates(bench: Bench, variants: tuple[Method, ...]) -> list[Method]:
    """Return the variants with every learning rate; a head alone takes larger ones."""
    found = []
    for method in variants:
        factor = PROBE_FACTOR if method.name == "linear probe" else 1.0
        for lr in bench.settings.lrs:
            phases = tuple(replace(phase, lr=phase.lr or lr * factor) for phase in method.phases)
            found.append(replace(method, phases=phases))
    return found


def _choose(evaluator: Evaluator, candidates: list[Method], folds: tuple[Fold, ...], seed: int) -> Method:
    scores = evaluator.race(candidates, folds, seed, lambda method, accuracy: accuracy)
    return max((method for method in candidates if scores[method].complete), key=lambda method: scores[method].mean)


def _train(evaluator: Evaluator, method: Method, rows: Rows | None, seed: int) -> Trial:
    every = rows if rows is not None else np.arange(len(evaluator.trainer.data.train), dtype=np.int64)
    (trial,) = evaluator.run([TrainingJob(method, every, None, None, seed)])
    return trial


def _result(method: Method, final: Trial, trials: tuple[Trial, ...]) -> dict[str, Any]:
    return {
        "test": final.accuracy,
        "lr": final.lr,
        "subset": list(method.paths) if method.name in SUBTUNING else [],
        "variant": method.variant,
        "choosing": asdict(Effort.of(trial for trial in trials if trial.fold is not None)),
        "final": asdict(Effort.of([final])),
    }
