"""What reviewers asked of the paper: the second block, the cost of the search, how stable the choice is, blocks as data grows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from benchmarks.studies.claims.choice import chosen
from benchmarks.studies.claims.plan import IMAGES, MAIN_TASKS
from benchmarks.studies.claims.statistics import agreement, compare_pairs, spread
from benchmarks.studies.claims.tables.greedy import EPSILONS
from benchmarks.studies.claims.tables.source import Searched, Source, difference_words, mean_words, p_words, table
from contract.units import human_macs
from tuning.search.greedy import Selection, StopRule
from tuning.search.rank_replay import replay_ranked
from tuning.search.score import Objective

_PAID = ("subtuning", "linear probe", "full finetuning", "lp-ft", "surgical", "lora")


def section(source: Source) -> str:
    """Return the section."""
    added = ["task", "block", "searches", "cross-validated, points", "tested, points", "p of tested, t", "p, permutation"]
    cost = ["what", "trainings", "epochs", "MACs", "seconds", "against one full finetuning, MACs"]
    stable = ["task", "seeds", "first block, most frequent", "choice over seeds, Jaccard", "choice over epsilon, Jaccard"]
    return (
        "## Reviewers' questions\n### What does each further block add?\nMean difference to one block "
        "less on the way of the same search, with its "
        f"interval of 95 % by Student's t over seeds (over tasks and seeds where it says all); {IMAGES} "
        f"pictures.\n\n{table(added, _added(source))}\n"
        "### What does the search cost?\nMeans; seconds are of one core by the clock, or of the processor "
        "where the machine was busy (marked *). "
        "SubTuning's search is the exhaustive one; choosing is of learning rates, groups and ranks.\n\n"
        f"{table(cost, _costs(source))}\n### Is the choice stable?\nOf the seeds' choices each two are "
        "compared: 1 is the same blocks, 0 none in "
        f"common. Epsilons: {', '.join(f'{epsilon:g}' for epsilon in EPSILONS)}.\n\n{table(stable, _stability(source))}\n"
        "### How many blocks are chosen as data "
        f"grows?\n\n{table(['task', 'pictures', 'searches', 'blocks', 'tested, %'], _growth(source))}"
    )


def _way(source: Source, searched: Searched) -> Selection:
    return chosen(searched.contents, source.settings, epsilon=-1.0)


def _added(source: Source) -> list[list[str]]:
    rows = []
    pooled: dict[int, list[tuple[float, float, float, float]]] = {}
    for task in MAIN_TASKS:
        found: dict[int, list[tuple[float, float, float, float]]] = {}
        for one in source.searched(task, IMAGES):
            steps = _way(source, one).steps
            for count, (before, after) in enumerate(itertools.pairwise(steps), 1):
                tested = (one.finals[after.subset], one.finals[before.subset])
                found.setdefault(count, []).append((after.score.mean, before.score.mean, *tested))
        for count, values in found.items():
            rows.append(_added_row(task, count, values))
            pooled.setdefault(count, []).extend(values)
    return rows + [_added_row("all", count, values) for count, values in pooled.items()]


def _added_row(task: str, count: int, values: Sequence[tuple[float, float, float, float]]) -> list[str]:
    after, before, tested, tested_before = zip(*values, strict=True)
    scored, reached = compare_pairs(after, before), compare_pairs(tested, tested_before)
    words = [difference_words(scored), difference_words(reached), p_words(reached.p_student), p_words(reached.p_permutation)]
    return [task, str(count), str(len(values)), *words]


def _costs(source: Source) -> list[list[str]]:
    full = _efforts(source, "full finetuning", "final")
    reference = spread([effort["macs"] for effort in full])[0] if full else math.nan
    rows = []
    searches = [one for task in MAIN_TASKS for one in source.searched(task, IMAGES)]
    for blocks in sorted({len(step.subset) for one in searches for step in _way(source, one).steps} - {0}):
        done = [one for one in searches if one.unit.blocks >= blocks]
        rule = StopRule(-1.0, max_blocks=blocks)
        efforts = [replay_ranked(one.contents, None, "forward", rule, Objective()).effort for one in done]
        busy = any(source.entries[one.unit].busy for one in done)
        plain = [asdict(effort) for effort in efforts]
        rows.append(_cost_row(f"exhaustive search to {blocks} block{'s' * (blocks > 1)}", plain, reference, busy=busy))
    for method in _PAID:
        for part in ("choosing", "final"):
            efforts_of = _efforts(source, method, part)
            if efforts_of:
                busy = any(entry.busy for entry in source.of("method") if entry.unit.method == method)
                rows.append(_cost_row(f"{method}, {part}", efforts_of, reference, busy=busy))
    return rows


def _efforts(source: Source, method: str, part: str) -> list[Mapping[str, float]]:
    entries = [one for one in source.of("method") if one.unit.method == method and one.unit.task in MAIN_TASKS]
    return [entry.result[part] for entry in entries if entry.unit.images == IMAGES]


def _cost_row(name: str, efforts: Iterable[Mapping[str, float | None]], reference: float, *, busy: bool) -> list[str]:
    known = list(efforts)

    def mean(field: str) -> float:
        return spread([float(effort[field] or 0.0) for effort in known])[0]

    measured = busy and all(effort["processor_s"] is not None for effort in known)
    seconds = f"{mean('processor_s'):,.0f} *" if measured else f"{mean('seconds'):,.0f}{' (busy)' * busy}"
    ratio = "-" if math.isnan(reference) else f"{mean('macs') / reference:,.1f}x"
    return [name, f"{mean('trainings'):,.0f}", f"{mean('epochs'):,.0f}", human_macs(round(mean("macs"))), seconds, ratio]


def _stability(source: Source) -> list[list[str]]:
    rows = []
    for task in MAIN_TASKS:
        searches = source.searched(task, IMAGES)
        if not searches:
            continue
        first = [_way(source, one).steps[1].subset[0] for one in searches]
        most = max(dict.fromkeys(first), key=first.count)
        over_seeds = agreement([chosen(one.contents, source.settings).chosen.subset for one in searches])
        by_epsilon = [
            agreement([chosen(one.contents, source.settings, epsilon=epsilon).chosen.subset for epsilon in EPSILONS])
            for one in searches
        ]
        rows.append(
            [
                task,
                str(len(searches)),
                f"{most} ({first.count(most)} of {len(first)})",
                p_words(over_seeds),
                f"{spread(by_epsilon)[0]:.3f}",
            ]
        )
    return rows


def _growth(source: Source) -> list[list[str]]:
    rows = []
    for task, images in sorted({(one.unit.task, one.unit.images) for one in source.searches if one.unit.blocks > 1}):
        searches = source.searched(task, images)
        found = [chosen(one.contents, source.settings).chosen.subset for one in searches]
        blocks = spread([float(len(subset)) for subset in found])
        tested = [one.finals[subset] for one, subset in zip(searches, found, strict=True)]
        rows.append([task, str(images), str(len(found)), f"{blocks[0]:.1f} ± {blocks[1]:.1f}", mean_words(tested)])
    return rows
