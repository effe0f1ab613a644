"""AFT from lite0, lite2 and a random network into a small one."""

from __future__ import annotations

from benchmarks.studies.claims.statistics import spread
from benchmarks.studies.claims.tables.source import Source, mean_words, table
from benchmarks.studies.claims.unit import Entry


def section(source: Source) -> str:
    """Return the section."""
    entries = source.of("transfer")
    groups = dict.fromkeys((entry.unit.task, entry.unit.images, entry.unit.method, entry.unit.beta) for entry in entries)
    rows = []
    for task, images, method, beta in groups:
        known = [
            one
            for one in entries
            if (one.unit.task, one.unit.images, one.unit.method, one.unit.beta) == (task, images, method, beta)
        ]
        tested = mean_words([float(entry.result["test"]) for entry in known])
        rows.append([task, str(images), method, f"{beta:g}" if beta else "", tested, _weights(known)])
    head = ["task", "pictures", "method", "beta", "tested, %", "AFT's weight of each teacher: mean (share of what it says)"]
    return f"## Transfer\nTeachers' features are brought to one scale; every weight starts at 0.5.\n\n{table(head, rows)}"


def _weights(entries: list[Entry]) -> str:
    learned = [entry.result["weights"] for entry in entries]
    words = []
    for teacher in learned[0]:
        mean, share = (spread([float(one[teacher][field]) for one in learned])[0] for field in ("mean", "share"))
        words.append(f"{teacher.removeprefix('pypi:')} {mean:.2f} ({100 * share:.0f} %)")
    return ", ".join(words)
