"""What a question about images or texts is answered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.answers.readers import AnyAnswer
from serving.engines.base import SegmentRun


@dataclass(frozen=True)
class Prediction:
    """For each task its answer about each image or text; the segment runs that it took, and the seconds that it waited.

    errors: of tasks that failed, a sentence each; only when the request allowed it. versions: of the tasks' models that answered.
    prepare_seconds: that the images, or texts, took to become rows. cut: by task, the places of texts of which only the beginning was read.
    names: of images that have such: the files'. cached: segments that did not run, since an earlier request had left what they give.
    """

    tasks: Mapping[str, tuple[AnyAnswer, ...]]
    runs: tuple[SegmentRun, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    queue_seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    prepare_seconds: float = 0.0
    cut: Mapping[str, frozenset[int]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Mapping[str, AnyAnswer]]:
        """Return for each image, or text, what the tasks answer, by their names."""
        return [dict(zip(self.tasks, answers, strict=True)) for answers in zip(*self.tasks.values(), strict=True)]
