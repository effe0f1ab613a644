"""Scores methods by cross-validation on the training images: several trainings side by side, each once, all of them in the ledger.

Racing: in a step of a greedy search only the best candidate matters. One fold of each candidate is run, then the leader's other folds;
after that a candidate is given up as soon as it could not win even if all its remaining folds scored the metric's best. The outcome is
the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tuning.data.folds import Fold, Rows
from tuning.errors import NonFiniteLoss, TuningError
from tuning.search.ledger import Ledger, Trial
from tuning.search.score import Score
from tuning.search.workers import Cancelled, find_workers, run_all
from tuning.training.dry_run import DryRun, dry_run
from tuning.training.loop import OnEpoch
from tuning.training.methods import Method
from tuning.training.trainer import Prepared, Trainer

_Result = TypeVar("_Result")


class TrialDiverged(TuningError):
    """A training of a search diverged."""

    def __init__(self, job: TrainingJob, error: NonFiniteLoss, kept: int) -> None:
        where = ", ".join(job.method.paths) or job.method.name
        fold = "" if job.fold is None else f", fold {job.fold + 1}"
        super().__init__(f"Tuning {where}{fold}: {error} The ledger keeps the {kept} trainings that were done.")


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """A training. rows: of the training images. scored_on: further such rows, None: the test images. fold: its number, if it is one's."""

    method: Method
    rows: Rows
    scored_on: Rows | None
    fold: int | None
    seed: int


class Evaluator:
    """Runs trainings with one trainer and one ledger. workers: side by side; None: as `find_workers` says."""

    def __init__(self, trainer: Trainer, ledger: Ledger, workers: int | None = None, on_epoch: OnEpoch | None = None) -> None:
        self.trainer = trainer
        self.ledger = ledger
        self._workers = workers or find_workers(trainer.compute.device)
        self._on_epoch = on_epoch or (lambda done, total: None)
        self._prepared: dict[tuple[Method, int], Prepared] = {}  # by method without learning rates, and seed; of one evaluation
        self._dry_runs: dict[Method, DryRun] = {}  # by method without learning rates
        self._order = {block: index for index, block in enumerate(trainer.backbone.blocks)}

    def cross_validate(self, methods: Iterable[Method], folds: Sequence[Fold], seed: int) -> dict[Method, Score]:
        """Return the score of every method, all folds run.

        Raises TrialDiverged, BadData. KeyboardInterrupt leaves a usable ledger, as every error does.
        """
        self.forget()
        ordered = self.in_order(methods)
        self.run([fold_job(method, folds, fold, seed) for method in ordered for fold in range(len(folds))])
        return self.scores(ordered, folds, seed)

    def race(
        self, methods: Iterable[Method], folds: Sequence[Fold], seed: int, value: Callable[[Method, float], float]
    ) -> dict[Method, Score]:
        """Return scores of which that of the best method, by `value` of method and worth, is complete; hopeless ones are not."""
        self.forget()
        ordered = self.in_order(methods)
        self.run([fold_job(method, folds, 0, seed) for method in ordered])
        scores = self.scores(ordered, folds, seed)
        leader = max(ordered, key=lambda method: value(method, scores[method].worth))
        self.run([fold_job(leader, folds, fold, seed) for fold in range(len(folds))])
        for fold in range(1, len(folds)):
            scores = self.scores(ordered, folds, seed)
            best = max(value(method, score.worth) for method, score in scores.items() if score.complete)
            hopeful = [m for m in ordered if not scores[m].complete and value(m, scores[m].bound) >= best]
            self.run([fold_job(method, folds, fold, seed) for method in hopeful])
        return self.scores(ordered, folds, seed)

    def run(self, jobs: Sequence[TrainingJob]) -> list[Trial]:
        """Return the outcome of each job; those that the ledger lacks are done now."""
        missing = [job for job in jobs if self._find(job) is None]
        if missing:
            self.side_by_side(missing, self._train, self.ledger.add)
        return [trial for trial in map(self._find, jobs) if trial is not None]

    def side_by_side(
        self,
        jobs: Sequence[TrainingJob],
        train: Callable[[TrainingJob, Prepared, OnEpoch], _Result],
        done: Callable[[_Result], None],
    ) -> None:
        """Have `train` carry out all jobs, several at a time where that is sound; `done` is told each result as soon as it is there."""
        # Tracing is for one thread alone, so everything is prepared before the threads start.
        random = [self.dry_run(job).random for job in jobs]
        progress = _Progress(self._on_epoch, sum(job.method.epochs for job in jobs))

        def carry_out(job: TrainingJob) -> _Result:
            return self._carry_out(job, train, progress)

        run_all(jobs, carry_out, done, 1 if any(random) else self._workers, progress.stop)

    def alone(
        self, job: TrainingJob, train: Callable[[TrainingJob, Prepared, OnEpoch], _Result], done: Callable[[_Result], None]
    ) -> None:
        """Have `train` carry out one job in a thread of its own, where nothing else runs networks meanwhile."""
        self.dry_run(job)
        progress = _Progress(self._on_epoch, job.method.epochs)
        run_all([job], lambda one: self._carry_out(one, train, progress), done, 1, progress.stop)

    def dry_run(self, job: TrainingJob) -> DryRun:
        """Return what the job's method costs; the method is prepared, too."""
        same = _without_rates(job.method)
        if (same, job.seed) not in self._prepared:
            self._prepared[same, job.seed] = self.trainer.prepare(same, job.seed)
        if same not in self._dry_runs:
            self._dry_runs[same] = dry_run(self.trainer, self._prepared[same, job.seed])
        return self._dry_runs[same]

    def macs(self, job: TrainingJob) -> int:
        """Return the multiply-accumulates of a job that was prepared, forward and backward."""
        return self._dry_runs[_without_rates(job.method)].macs_per_image * len(job.rows) * job.method.epochs

    def forget(self) -> None:
        """Let go of the networks that were prepared."""
        self._prepared.clear()

    def _carry_out(
        self, job: TrainingJob, train: Callable[[TrainingJob, Prepared, OnEpoch], _Result], progress: _Progress
    ) -> _Result:
        try:
            return train(job, replace(self._prepared[_without_rates(job.method), job.seed], method=job.method), progress)
        except NonFiniteLoss as error:
            raise TrialDiverged(job, error, len(self.ledger.contents.trials)) from error

    def _train(self, job: TrainingJob, prepared: Prepared, on_epoch: OnEpoch) -> Trial:
        trained = self.trainer.run(prepared, job.rows, job.seed, on_epoch=on_epoch)
        method, what = job.method, "test" if job.scored_on is None else "training"
        return Trial(
            method=method.name,
            variant=method.variant,
            subset=method.paths,
            fold=job.fold,
            seed=job.seed,
            train_images=len(job.rows),
            score=self.trainer.score(trained, what, job.scored_on),
            loss=trained.loss,
            epochs=method.epochs,
            lr=self.trainer.lr(method),
            seconds=round(trained.seconds, 4),
            macs=self.macs(job),
            processor_s=trained.processor_s,
        )

    def _find(self, job: TrainingJob) -> Trial | None:
        method = job.method
        lr = self.trainer.lr(method)
        return self.ledger.find((method.name, method.variant, method.paths, job.fold, job.seed, len(job.rows), lr))

    def scores(self, methods: Iterable[Method], folds: Sequence[Fold], seed: int) -> dict[Method, Score]:
        """Return the score of every method by the folds that were run so far."""
        found: dict[Method, Score] = {}
        for method in methods:
            trials = [self._find(fold_job(method, folds, fold, seed)) for fold in range(len(folds))]
            found[method] = Score(
                tuple(trial.score for trial in trials if trial is not None), len(folds), self.ledger.header.metric
            )
        return found

    def in_order(self, methods: Iterable[Method]) -> list[Method]:
        """Return the methods, each once, by the first block that they tune: those that share features come together."""
        last = len(self._order)
        return sorted(dict.fromkeys(methods), key=lambda method: [self._order.get(path, 0) for path in method.paths] or [last])


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


def fold_job(method: Method, folds: Sequence[Fold], fold: int, seed: int) -> TrainingJob:
    """Return the job to train `method` on a fold's rows and to score it on the others."""
    return TrainingJob(method, folds[fold].train, folds[fold].validation, fold, seed)


def _without_rates(method: Method) -> Method:
    """Return what is the same in methods that differ in learning rates and in what they are called."""
    return replace(method, name="", variant="", phases=tuple(replace(phase, lr=None) for phase in method.phases))
