"""Finetuning profiles by task: which block each task wants tuned."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.studies.claims.plan import IMAGES, MAIN_TASKS, WORDS
from benchmarks.studies.claims.tables.source import Searched, Source, mean_words, table
from tuning.search.replay import search_scores
from tuning.search.score import Subset


def section(source: Source) -> str:
    """Return the section."""
    profiles = {task: profile(source.searched(task, IMAGES)) for task in MAIN_TASKS}
    blocks = dict.fromkeys(subset for found in profiles.values() for subset in found)
    rows = [[_name(subset), *(_cell(profiles[task], subset) for task in MAIN_TASKS)] for subset in blocks]
    told = "".join(f"- {WORDS[task]}\n" for task in MAIN_TASKS)
    return (
        f"## Profiles with {IMAGES} pictures\nAccuracy in % by cross-validation, one block tuned: mean and "
        "deviation over seeds (their number "
        f"in brackets); the best block is bold.\n\n{told}\n{table(['tuned', *MAIN_TASKS], rows)}"
    )


def profile(searches: Sequence[Searched]) -> Mapping[Subset, list[float]]:
    """Return the scores of the head and of each block, by seed."""
    found: dict[Subset, list[float]] = {}
    for searched in searches:
        scores = search_scores(searched.contents)
        for subset in [(), *((block.name,) for block in searched.contents.header.blocks)]:
            if subset in scores and scores[subset].complete:
                found.setdefault(subset, []).append(scores[subset].mean)
    return found


def _cell(found: Mapping[Subset, list[float]], subset: Subset) -> str:
    if subset not in found:
        return ""
    words = mean_words(found[subset])
    best = max((s for s in found if s), key=lambda s: statistics.fmean(found[s]))
    return f"**{words}**" if subset == best else words


def _name(subset: Subset) -> str:
    return "+".join(subset) or "head only"
