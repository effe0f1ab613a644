"""SubTuning beside its baselines on the test pictures, with paired tests over seeds."""

from __future__ import annotations

from benchmarks.studies.claims.plan import IMAGES, MAIN_TASKS
from benchmarks.studies.claims.statistics import compare_pairs
from benchmarks.studies.claims.tables.source import Source, difference_words, mean_words, p_words, table
from benchmarks.studies.claims.unit import METHODS

_ONE = "subtuning"
_HEAD = ("SubTuning against", "task", "pairs", "points", "p, t", "p, permutation")


def section(source: Source) -> str:
    """Return the section."""
    rows = []
    for method in METHODS:
        found = [list(source.tested(task, method, IMAGES).values()) for task in MAIN_TASKS]
        if any(found):
            rows.append([method, *(mean_words(values) for values in found)])
    return (
        f"## Methods with {IMAGES} pictures\nAccuracy on the test pictures in %, mean and deviation over "
        "seeds (their number); learning rates, "
        f"blocks, groups and ranks are chosen by folds of the same pictures.\n\n{table(['method', *MAIN_TASKS], rows)}\n"
        "What SubTuning has over the others in points, on the same draws, with the interval of 95 % by "
        "Student's t; p by the paired t test and "
        "by the sign-flip permutation test, which cannot be below 2 / 2^n of n pairs (0.25 of 3, 0.0625 "
        "of 5): a task alone shows nothing at "
        f'0.05 by it. "All" takes the tasks\' pairs together.\n\n{table(_HEAD, _tests(source))}'
    )


def _tests(source: Source) -> list[list[str]]:
    rows = []
    for method in METHODS:
        if method == _ONE:
            continue
        ours: list[float] = []
        theirs: list[float] = []
        for task in MAIN_TASKS:
            one, other = source.tested(task, _ONE, IMAGES), source.tested(task, method, IMAGES)
            seeds = sorted(one.keys() & other.keys())
            if seeds:
                rows.append(_row(method, task, [one[seed] for seed in seeds], [other[seed] for seed in seeds]))
                ours += [one[seed] for seed in seeds]
                theirs += [other[seed] for seed in seeds]
        if len(ours) > 1:
            rows.append(_row(method, "all", ours, theirs))
    return rows


def _row(method: str, task: str, ours: list[float], theirs: list[float]) -> list[str]:
    found = compare_pairs(ours, theirs)
    return [method, task, str(found.pairs), difference_words(found), p_words(found.p_student), p_words(found.p_permutation)]
