"""Scores subsets by cross-validation on the training images: several trainings side by side, each once, all of them in the ledger.

Racing: in a step of a greedy search only the best candidate matters. One fold of each candidate is run, then the leader's other folds;
after that a candidate is given up as soon as it could not win even if all its remaining folds scored 1. The outcome is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tuning.errors import NonFiniteLoss, TuningError
from tuning.folds import Fold
from tuning.macs import training_macs
from tuning.methods import Method
from tuning.search.ledger import Ledger, Trial
from tuning.search.pool import Cancelled, find_workers, run_all
from tuning.search.score import Score, Subset
from tuning.trainer import Prepared, Trainer
from tuning.training import OnEpoch

MakeMethod = Callable[[Subset], Method]


class TrialDiverged(TuningError):
    """A training of a search diverged."""

    def __init__(self, subset: Subset, fold: int, error: NonFiniteLoss, kept: int) -> None:
        where = ", ".join(subset) or "the head alone"
        super().__init__(f"Tuning {where}, fold {fold + 1}: {error} The ledger keeps the {kept} trainings that were done.")


@dataclass(frozen=True)
class _Job:
    subset: Subset
    fold: int


class Evaluator:
    """Scores subsets with one trainer.

    make_method: what a subset means. folds: of the trainer's training rows. workers: trainings side by side; None: as `find_workers` says.
    """

    def __init__(
        self,
        trainer: Trainer,
        make_method: MakeMethod,
        folds: Sequence[Fold],
        ledger: Ledger,
        workers: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self._trainer = trainer
        self._make_method = make_method
        self._folds = folds
        self._ledger = ledger
        self._workers = workers or find_workers(trainer.compute.device)
        self._on_epoch = on_epoch or (lambda done, total: None)
        self._order = {block: index for index, block in enumerate(trainer.backbone.blocks)}

    def __call__(self, subsets: Sequence[Subset]) -> dict[Subset, Score]:
        """Return the score of every subset, all folds run. Raises TrialDiverged, BadData; KeyboardInterrupt leaves a usable ledger."""
        self._run([_Job(subset, fold) for subset in self._sorted(subsets) for fold in range(len(self._folds))])
        return self._scores(subsets)

    def race(self, subsets: Sequence[Subset], value: Callable[[Subset, float], float]) -> dict[Subset, Score]:
        """Return scores of which that of the best subset, by `value` of subset and accuracy, is complete; hopeless ones are not."""
        ordered = self._sorted(subsets)
        self._run([_Job(subset, 0) for subset in ordered])
        scores = self._scores(ordered)
        leader = max(ordered, key=lambda subset: value(subset, scores[subset].mean))
        self._run([_Job(leader, fold) for fold in range(1, len(self._folds))])
        for fold in range(1, len(self._folds)):
            scores = self._scores(ordered)
            best = max(value(subset, score.mean) for subset, score in scores.items() if score.complete)
            hopeful = [s for s in ordered if not scores[s].complete and value(s, scores[s].bound) >= best]
            self._run([_Job(subset, fold) for subset in hopeful])
        return self._scores(ordered)

    def _sorted(self, subsets: Iterable[Subset]) -> list[Subset]:
        """Return the subsets by their first block: those that share features come together."""
        return sorted(set(subsets), key=lambda subset: [self._order.get(block, 0) for block in subset] or [len(self._order)])

    def _scores(self, subsets: Iterable[Subset]) -> dict[Subset, Score]:
        found: dict[Subset, Score] = {}
        for subset in subsets:
            trials = [self._done(_Job(subset, fold)) for fold in range(len(self._folds))]
            found[subset] = Score(tuple(trial.accuracy for trial in trials if trial is not None), len(self._folds))
        return found

    def _done(self, job: _Job) -> Trial | None:
        return self._ledger.find(self._key(job))

    def _key(self, job: _Job) -> tuple[object, ...]:
        method, options = self._make_method(job.subset), self._trainer.options
        rows = len(self._folds[job.fold].train)
        return (method.name, "", job.subset, job.fold, options.seed, rows, self._trainer.lr(method))

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Do the trainings that the ledger lacks."""
        missing = [job for job in jobs if self._done(job) is None]
        if not missing:
            return
        # Tracing is for one thread alone, so everything is prepared before the threads start.
        subsets = dict.fromkeys(job.subset for job in missing)
        prepared = {subset: self._trainer.prepare(self._make_method(subset)) for subset in subsets}
        macs = {subset: training_macs(self._trainer, ready) for subset, ready in prepared.items()}
        workers = 1 if any(self._trainer.draws_randomly(ready) for ready in prepared.values()) else self._workers
        progress = _Progress(self._on_epoch, sum(prepared[job.subset].method.epochs for job in missing))

        def train(job: _Job) -> Trial:
            return self._train(job, prepared[job.subset], macs[job.subset], progress)

        run_all(missing, train, self._ledger.add, workers, progress.stop)

    def _train(self, job: _Job, prepared: Prepared, macs_per_image: int, progress: _Progress) -> Trial:
        fold, method = self._folds[job.fold], prepared.method
        try:
            trained = self._trainer.run(prepared, fold.train, on_epoch=progress)
        except NonFiniteLoss as error:
            raise TrialDiverged(job.subset, job.fold, error, len(self._ledger.contents.trials)) from error
        return Trial(
            method=method.name,
            subset=job.subset,
            fold=job.fold,
            seed=self._trainer.options.seed,
            train_images=len(fold.train),
            accuracy=self._trainer.accuracy(trained, "training", fold.validation),
            loss=trained.loss,
            epochs=method.epochs,
            lr=self._trainer.lr(method),
            seconds=round(trained.seconds, 4),
            macs=macs_per_image * len(fold.train) * method.epochs,
        )


class _Progress:
    """Counts the epochs of all threads; the callback of each training. A set `stop` ends trainings at their next epoch."""

    def __init__(self, tell: OnEpoch, total: int) -> None:
        self.stop = threading.Event()
        self._tell = tell
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, epoch: int, epochs: int) -> None:
        if self.stop.is_set():
            raise Cancelled
        with self._lock:
            self._done += 1
            self._tell(self._done, self._total)
