"""Corrupted pictures by severity: which block is wanted, and who wins."""

from __future__ import annotations

import statistics

from benchmarks.studies.claims.plan import CORRUPTION, IMAGES, SEVERITIES
from benchmarks.studies.claims.tables.profiles import profile
from benchmarks.studies.claims.tables.source import Source, mean_words, table

_METHODS = ("linear probe", "subtuning", "full finetuning")


def section(source: Source) -> str:
    """Return the section."""
    rows = [row for severity in (0, *SEVERITIES) if (row := _row(source, severity))]
    return (
        f"## Corruption: {CORRUPTION} at five severities\nGoogle's categories with {IMAGES} pictures, "
        "training and test pictures alike; accuracy on "
        "the test pictures in %. The best block is by "
        f"cross-validation.\n\n{table(['severity', 'best block', *_METHODS], rows)}"
    )


def _row(source: Source, severity: int) -> list[str]:
    task = f"category {CORRUPTION}:{severity}" if severity else "category"
    blocks = {subset: values for subset, values in profile(source.searched(task, IMAGES)).items() if subset}
    tested = [mean_words(list(source.tested(task, method, IMAGES).values())) for method in _METHODS]
    if not blocks and not any(tested):
        return []
    best = max(blocks, key=lambda subset: statistics.fmean(blocks[subset]))[0] if blocks else ""
    return [str(severity) if severity else "none", best, *tested]
