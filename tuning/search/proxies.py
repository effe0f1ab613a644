"""Measures what candidates are ranked by (`tuning.search.ranking`), each once: all of it, and what it took, is in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tuning.data.folds import Fold
from tuning.search.evaluate import Evaluator, TrainingJob, fold_job
from tuning.search.proxy import Proxy
from tuning.search.ranking import Rank, read_values
from tuning.search.score import Score, Subset
from tuning.training.gradients import block_gradients
from tuning.training.loop import OnEpoch
from tuning.training.methods import Method, linear_probe
from tuning.training.trainer import Prepared

_FOLD = 0  # the one whose rows proxies see
_PROBE = "linear probe"


class SearchTrainings:
    """The trainings of an open search, as a ranked step asks for them. method_of: how a subset is tuned."""

    def __init__(
        self, evaluator: Evaluator, folds: Sequence[Fold], blocks: Subset, method_of: Callable[[Subset], Method]
    ) -> None:
        self._evaluator = evaluator
        self._folds = folds
        self._blocks = blocks
        self._method_of = method_of
        self._seed = evaluator.trainer.options.seed

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return len(self._folds)

    def run(self, subsets: Sequence[Subset], fold: int) -> None:
        """Train these subsets on one fold, if that was not done."""
        self._evaluator.forget()
        methods = self._evaluator.in_order(self._method_of(subset) for subset in subsets)
        self._evaluator.run([fold_job(method, self._folds, fold, self._seed) for method in methods])

    def scores(self, subsets: Sequence[Subset]) -> Mapping[Subset, Score]:
        """Return the scores by what was run so far, without subsets of which nothing was."""
        methods = {self._method_of(subset): subset for subset in subsets}
        found = self._evaluator.scores(methods, self._folds, self._seed)
        return {methods[method]: score for method, score in found.items() if score.folds}

    def values(self, rank: Rank, subsets: Sequence[Subset]) -> Mapping[Subset, float]:
        """Return what to rank by, more being better. What the ledger lacks is measured now."""
        if not rank.proxy:
            return {}
        if rank.proxy == "epoch":
            self.measure_epochs(subsets)
        else:
            self.measure_gradients()
        return read_values(
            rank, subsets, lambda subset: self._found(rank.proxy, subset).values, self._evaluator.trainer.backbone.blocks
        )

    def measure_epochs(self, subsets: Sequence[Subset]) -> None:
        """Train each subset for a single epoch, if that was not done."""
        missing = [subset for subset in subsets if self._find("epoch", subset) is None]
        methods = self._evaluator.in_order(_short(self._method_of(subset)) for subset in missing)
        if methods:
            self._evaluator.forget()
            jobs = [fold_job(method, self._folds, _FOLD, self._seed) for method in methods]
            self._evaluator.side_by_side(jobs, self._train_epoch, self._evaluator.ledger.add_proxy)

    def measure_gradients(self) -> None:
        """Measure the gradients of all blocks of the backbone, if that was not done."""
        blocks = self._evaluator.trainer.backbone.blocks
        if self._find("gradients", blocks) is None:
            self._evaluator.forget()
            probe = replace(self._method_of(()), siamese=False)
            if probe.name != _PROBE:  # of a Siamese search: the head of the network alone
                probe = linear_probe(probe.epochs)
            job = fold_job(probe, self._folds, _FOLD, self._seed)
            self._evaluator.alone(job, self._measure_gradients, self._evaluator.ledger.add_proxy)

    def _train_epoch(self, job: TrainingJob, prepared: Prepared, on_epoch: OnEpoch) -> Proxy:
        trainer, rows = self._evaluator.trainer, self._folds[_FOLD].validation
        start, processor_start = time.perf_counter(), time.thread_time()
        trained = trainer.run(prepared, job.rows, job.seed, on_epoch=on_epoch)
        values = {
            "validation_loss": (trainer.validation_loss(trained, rows),),
            "training_loss": (trained.loss,),
            "score": (trainer.objective.metric.worth(trainer.score(trained, "training", rows)),),
        }
        alone = trained.processor_s is not None
        return self._proxy(
            "epoch",
            job.method.paths,
            values,
            epochs=job.method.epochs,
            seconds=round(time.perf_counter() - start, 4),
            macs=self._evaluator.macs(job),
            processor_s=round(time.thread_time() - processor_start, 4) if alone else None,
        )

    def _measure_gradients(self, job: TrainingJob, prepared: Prepared, on_epoch: OnEpoch) -> Proxy:
        trainer = self._evaluator.trainer
        start, processor_start = time.perf_counter(), time.process_time()  # nothing else runs meanwhile
        found = block_gradients(trainer, prepared, self._evaluator.macs(job), job.rows, job.seed, on_epoch)
        return self._proxy(
            "gradients",
            trainer.backbone.blocks,
            found.norms,
            epochs=found.epochs,
            seconds=round(time.perf_counter() - start, 4),
            macs=found.macs,
            processor_s=round(time.process_time() - processor_start, 4) if trainer.compute.device == "cpu" else None,
        )

    def _proxy(
        self,
        name: str,
        subset: Subset,
        values: Mapping[str, tuple[float, ...]],
        *,
        epochs: int,
        seconds: float,
        macs: int,
        processor_s: float | None,
    ) -> Proxy:
        images, lr = len(self._folds[_FOLD].train), self._lr(name, subset)
        return Proxy(name, subset, _FOLD, self._seed, images, dict(values), epochs, lr, seconds, macs, processor_s)

    def _find(self, name: str, subset: Subset) -> Proxy | None:
        images, lr = len(self._folds[_FOLD].train), self._lr(name, subset)
        return self._evaluator.ledger.find_proxy((name, subset, _FOLD, self._seed, images, lr))

    def _found(self, name: str, subset: Subset) -> Proxy:
        found = self._find(name, subset)
        assert found is not None, "it was measured just before"
        return found

    def _lr(self, name: str, subset: Subset) -> float:
        return self._evaluator.trainer.lr(self._method_of(subset if name == "epoch" else ()))


def _short(method: Method) -> Method:
    """Return the method with a single epoch."""
    return replace(method, phases=tuple(replace(phase, epochs=1) for phase in method.phases))
