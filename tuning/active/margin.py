"""Margin-based active learning (arXiv 2302.06354): label first what the network is least sure of, in rounds.

Simulated on a labelled pool: the training images are the pool, and a label counts as known once it was asked for. Every round starts
again from the pretrained weights and a new head, so that a round depends on its labels alone; the frozen features are computed once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from tuning.data.folds import Rows, draw_rows
from tuning.data.labelled import require_classes
from tuning.errors import BadOptions
from tuning.training.methods import Method
from tuning.training.trainer import Trained, Trainer

Strategy = Literal["margin", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

_RANDOM_STREAM = 2  # beside those of tuning.data.folds


@dataclass(frozen=True)
class ActiveRound:
    """labels: how many are known. rows: the training images that they are of, in the order in which they were asked for.

    test_accuracy: in [0, 1]. seconds: of training.
    """

    labels: int
    rows: tuple[int, ...]
    test_accuracy: float
    seconds: float


Comparison = Mapping[Strategy, Sequence[Sequence[ActiveRound]]]  # the rounds of every seed, by strategy
OnRound = Callable[[int, int], None]  # (rounds done, rounds in all)
_Ask = Callable[[Trained, Rows, int], Rows]  # (what the last round gave, rows with labels, how many more) to rows


def margins(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return how much more likely the first class is than the second: (n, classes), at least 2 of them, to (n,)."""
    highest = np.partition(probabilities.astype(np.float64), -2, axis=1)
    found: NDArray[np.float64] = highest[:, -1] - highest[:, -2]
    return found


def next_rows(margins: NDArray[np.floating[Any]], taken: Rows, count: int) -> Rows:
    """Return the `count` rows of the lowest margins that are not `taken`, lowest first; of equal margins the first rows.

    Raises BadOptions when fewer are left.
    """
    order = np.argsort(margins, kind="stable").astype(np.int64)
    left: Rows = order[~np.isin(order, taken)]
    _require(count, len(left))
    return left[:count]


def random_rows(pool: int, taken: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Return `count` rows below `pool` that are not `taken`, drawn by `rng`. Raises BadOptions when fewer are left."""
    left = np.setdiff1d(np.arange(pool, dtype=np.int64), taken)
    _require(count, len(left))
    return rng.choice(left, count, replace=False)


def active_learning(
    trainer: Trainer,
    method: Method,
    sizes: Sequence[int],
    seed: int,
    strategy: Strategy,
    *,
    first: Rows | None = None,
    on_round: OnRound | None = None,
) -> tuple[ActiveRound, ...]:
    """Train `method` on as many labels as `sizes` says, round after round; what is asked for next is chosen by `strategy`.

    sizes: labels in all, rising. seed: of the first round's draw, which is stratified, of random choices, heads and training.
    first: the rows of the first round, where they are not to be drawn.
    All strategies begin with the same rows. Raises BadOptions, BadData (fewer labels than classes), NonFiniteLoss.
    """
    require_classes(trainer.data.kind, "Active learning")
    targets = trainer.data.train.targets
    check_sizes(sizes, len(targets))
    if first is not None and len(first) != sizes[0]:
        raise BadOptions(f"The first round has {sizes[0]} labels, but {len(first)} rows were given for it.")
    rows = draw_rows(targets, sizes[0], seed, "training") if first is None else first
    ask = _ask_unsure(trainer) if strategy == "margin" else _ask_randomly(len(targets), seed)
    prepared = trainer.prepare(method, seed)
    rounds: list[ActiveRound] = []
    for index, size in enumerate(sizes):
        trained = trainer.run(prepared, rows, seed)
        rounds.append(ActiveRound(size, tuple(rows.tolist()), trainer.score(trained), trained.seconds))
        if size != sizes[-1]:
            rows = np.concatenate([rows, ask(trained, rows, sizes[index + 1] - size)])
        if on_round:
            on_round(index + 1, len(sizes))
    return tuple(rounds)


def compare(
    trainer: Trainer,
    method: Method,
    sizes: Sequence[int],
    seeds: Sequence[int],
    strategies: Sequence[Strategy] = STRATEGIES,
    on_round: OnRound | None = None,
) -> Comparison:
    """Return the rounds of every strategy and seed. Raises what `active_learning` does."""
    total = len(strategies) * len(seeds) * len(sizes)
    found: dict[Strategy, list[tuple[ActiveRound, ...]]] = {strategy: [] for strategy in strategies}
    for position, (seed, strategy) in enumerate((seed, strategy) for seed in seeds for strategy in strategies):
        done = position * len(sizes)
        told = None if on_round is None else lambda index, _, done=done: on_round(done + index, total)
        found[strategy].append(active_learning(trainer, method, sizes, seed, strategy, on_round=told))
    return found


def summarise(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Return, by strategy, a plain record of every round: labels, mean and deviation (0 for one seed) over seeds, and each seed's own."""
    return {
        strategy: [
            {
                "labels": rounds[0].labels,
                "mean": statistics.fmean(r.test_accuracy for r in rounds),
                "deviation": statistics.stdev(r.test_accuracy for r in rounds) if len(rounds) > 1 else 0.0,
                "test_accuracy": [r.test_accuracy for r in rounds],
                "seconds": [r.seconds for r in rounds],
                "rows": [list(r.rows) for r in rounds],
            }
            for rounds in zip(*by_seed, strict=True)
        ]
        for strategy, by_seed in comparison.items()
    }


def check_sizes(sizes: Sequence[int], pool: int) -> None:
    """Raise BadOptions unless `sizes` rise from at least 2 to at most `pool` labels."""
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 2:
        raise BadOptions(f"Sizes are labels in all, rising from at least 2, as 100, 400, 500; not {', '.join(map(str, sizes))}.")
    _require(sizes[-1], pool)


def _ask_unsure(trainer: Trainer) -> _Ask:
    def ask(trained: Trained, taken: Rows, count: int) -> Rows:
        probabilities = torch.softmax(trainer.logits(trained, "training"), 1).numpy()
        return next_rows(margins(probabilities), taken, count)

    return ask


def _ask_randomly(pool: int, seed: int) -> _Ask:
    rng = np.random.default_rng((seed, _RANDOM_STREAM))
    return lambda trained, taken, count: random_rows(pool, taken, count, rng)


def _require(count: int, left: int) -> None:
    if count > left:
        raise BadOptions(f"{count} labels are asked for, but the pool has {left} images without one.")
