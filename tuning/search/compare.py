"""SubTuning beside its baselines, under one budget: the same images, the same epochs, every choice made by cross-validation.

A method may have something to choose: the learning rate, the block, the group, the rank. All of that is chosen on the training images
alone, with the same folds; then the method is trained on all of them and measured on the test images, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch import nn

from tuning.data.folds import Rows
from tuning.data.labelled import TaskData
from tuning.errors import BadOptions
from tuning.network.backbone import Backbone
from tuning.network.blocks import find_blocks
from tuning.search.evaluate import Evaluator, TrainingJob
from tuning.search.ledger import Ledger, Trial, open_ledger
from tuning.search.search import make_header
from tuning.training.features import FeatureStore
from tuning.training.loop import FitOptions, OnEpoch
from tuning.training.methods import BASELINES, PROBE_FACTOR, Method, Variants, subtuning
from tuning.training.trainer import Trainer


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    methods: names out of `METHODS`. sizes: numbers of training images; (): all. seeds: of draws, folds, heads and orders.
    lrs: to choose from. folds: to choose by. blocks: what SubTuning may choose one of, () for any single block; several blocks
    joined by "+" are tuned together. workers: trainings side by side.
    """

    methods: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    lrs: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    folds: int = 5
    blocks: tuple[str, ...] = ()
    workers: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise BadOptions(f"Unknown method {(unknown or ['(none)'])[0]!r}; known are: {', '.join(METHODS)}.")
        if not self.seeds or not self.lrs or min(self.lrs) <= 0:
            raise BadOptions("A comparison needs at least one seed, and learning rates above 0.")


METHODS: Mapping[str, Variants] = MappingProxyType(
    {
        "subtuning": lambda network, epochs: tuple(subtuning((block,), epochs) for block in find_blocks(network)),
        "siamese subtuning": lambda network, epochs: tuple(
            subtuning((block,), epochs, siamese=True) for block in find_blocks(network)
        ),
        **BASELINES,
    }
)


def compare(
    backbone: Backbone,
    data: TaskData,
    fit_options: FitOptions,
    comparison: Comparison,
    ledger: Path,
    *,
    on_run: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Trial, ...]:
    """Return the final trainings, scored on the test images: one per method, size and seed. Goes on from what `ledger` holds.

    on_run: is told (what, epochs done, epochs in all) as trainings advance.
    Raises BadData, BadOptions, UnsupportedNetwork (a method that this network cannot have), LedgerMismatch, TrialDiverged.
    """
    header = make_header(backbone, data, fit_options, 0)
    header = replace(header, training={**header.training, "selection_folds": comparison.folds})
    with _store(fit_options, say) as store, open_ledger(ledger, header) as opened:
        trainer = Trainer(backbone, data, fit_options, store)
        candidates = {name: _candidates(name, trainer, comparison) for name in comparison.methods}
        found: list[Trial] = []
        for size in comparison.sizes or (len(data.train),):
            for seed in comparison.seeds:
                rows = trainer.objective.draw(size, seed)
                for name in comparison.methods:
                    what = f"{name}, {size} images, seed {seed}"
                    found.append(_compete(trainer, opened, comparison, candidates[name], rows, seed, _telling(on_run, what)))
    return tuple(found)


def _compete(
    trainer: Trainer,
    ledger: Ledger,
    comparison: Comparison,
    candidates: Sequence[Method],
    rows: Rows,
    seed: int,
    on_epoch: OnEpoch | None,
) -> Trial:
    """Choose among `candidates` by cross-validation on `rows`, train the choice on all of them, and score it on the test images."""
    evaluator = Evaluator(trainer, ledger, comparison.workers, on_epoch)
    chosen = candidates[0]
    if len(candidates) > 1:
        folds = trainer.objective.folds_of(rows, comparison.folds, seed)
        scores = evaluator.race(candidates, folds, seed, lambda method, worth: worth)
        chosen = max((m for m in candidates if scores[m].complete), key=lambda method: scores[method].worth)
    (trial,) = evaluator.run([TrainingJob(chosen, rows, None, None, seed)])
    return trial


def _candidates(name: str, trainer: Trainer, comparison: Comparison) -> list[Method]:
    """Return what a method chooses from: its variants, each with every learning rate."""
    network: nn.Module = trainer.backbone.network
    variants = METHODS[name](network, trainer.options.epochs)
    if comparison.blocks and "subtuning" in name:
        siamese = name.startswith("siamese")
        variants = tuple(subtuning(b.split("+"), trainer.options.epochs, siamese=siamese) for b in comparison.blocks)
    factor = PROBE_FACTOR if name == "linear probe" else 1.0
    return [_with_lr(method, lr * factor) for method in variants for lr in comparison.lrs]


def _with_lr(method: Method, lr: float) -> Method:
    """Return the method with the peak `lr` in every phase that has none of its own."""
    return replace(method, phases=tuple(replace(phase, lr=phase.lr or lr) for phase in method.phases))


def _telling(on_run: Callable[[str, int, int], None] | None, what: str) -> OnEpoch | None:
    return None if on_run is None else lambda done, total: on_run(what, done, total)


@contextmanager
def _store(options: FitOptions, say: Callable[[str], None] | None) -> Iterator[FeatureStore]:
    store = FeatureStore(options.cache_bytes, options.cache_folder, say)
    try:
        yield store
    finally:
        store.close()
