"""Labels by the lowest margin beside labels at random."""

from __future__ import annotations

from benchmarks.studies.claims.statistics import compare_pairs
from benchmarks.studies.claims.tables.source import Source, difference_words, mean_words, table


def section(source: Source) -> str:
    """Return the section."""
    rows = []
    entries = source.of("active")
    for task in dict.fromkeys(entry.unit.task for entry in entries):
        known = [entry.result for entry in entries if entry.unit.task == task]
        for index, labels in enumerate(known[0]["labels"]):
            margin, chance = ([float(result[way][index]) for result in known] for way in ("margin", "random"))
            points = difference_words(compare_pairs(margin, chance))
            rows.append([task, str(labels), mean_words(margin), mean_words(chance), points])
    head = ["task", "labels", "lowest margin, %", "at random, %", "points"]
    about = "The best single block is tuned, each round anew; both ways begin with the same labels."
    return f"## Active learning\n{about}\n\n{table(head, rows)}"
