"""Words of charts: numbers and subsets, short enough for the room that they have."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.search.score import Score, Subset

DEVIATION = "\N{PLUS-MINUS SIGN}"
_RUN = 3  # so many neighbouring blocks, or more, are named by the first and the last


def score_words(score: Score) -> str:
    """Return mean and deviation over folds with the metric's unit."""
    return score.words


def subset_words(subset: Subset, blocks: Sequence[str], most: int = 3) -> str:
    """Return a subset in words: neighbours in `blocks` as a range, and at most about `most` names."""
    if not subset:
        return "head alone"
    if len(subset) == len(blocks) > 1:
        return f"all {len(blocks)} blocks"
    parts = [_run_words(run) for run in _runs(subset, blocks)]
    shown: list[str] = []
    used = 0
    for words, names in parts:
        if shown and used + names > most:
            break
        shown.append(words)
        used += names
    rest = len(subset) - sum(len(run) for run in _runs(subset, blocks)[: len(shown)])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _runs(subset: Subset, blocks: Sequence[str]) -> list[list[str]]:
    """Return the subset as runs of neighbours, short runs taken apart."""
    place = {block: index for index, block in enumerate(blocks)}
    runs: list[list[str]] = []
    for block in sorted(subset, key=lambda block: place[block]):
        if runs and place[block] == place[runs[-1][-1]] + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return [piece for run in runs for piece in ([run] if len(run) >= _RUN else [[block] for block in run])]


def _run_words(run: Sequence[str]) -> tuple[str, int]:
    """Return a run in words, and how many names that takes."""
    return (run[0], 1) if len(run) == 1 else (f"{run[0]} \N{EN DASH} {run[-1]}", 2)
