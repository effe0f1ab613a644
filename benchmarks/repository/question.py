"""What is asked of a repository: which tasks, for how many rows, of which sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ABOUT = "A repository of your own: one request for one, some and all tasks, against separate networks."
ALL_SIZES = ""  # in place of the name of a free size: whichever has no number of its own


@dataclass(frozen=True)
class Question:
    """What `espalier bench REPO` is to measure.

    path: of the repository. tasks: to measure, none: all, or a choice of them where there are many. rows: of each request. sizes: numbers
    for free sizes by name, ALL_SIZES for those that are not named; what is missing is measured at the reference.
    """

    path: Path
    tasks: tuple[str, ...] = ()
    rows: int = 1
    sizes: Mapping[str, int] = field(default_factory=dict)
