"""Segments that could not be opened when a run wanted them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from contract.errors import RepositoryError

log = logging.getLogger(__name__)
AGAIN_S = 1.0


@dataclass(frozen=True)
class _Failure:
    """Why, and when (time.monotonic)."""

    sentence: str
    at: float


class Failures:
    """What failed, until it succeeds. Logs when a segment is lost, and when it is back. Callable from any thread."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    @property
    def segments(self) -> Collection[str]:
        """Return the segments that could not be opened when they were last wanted."""
        return tuple(self._failures)

    def check(self, segment: str) -> None:
        """Raise RepositoryError where `segment` failed less than a second ago: an attempt may take long, and anybody can ask for one."""
        failure = self._failures.get(segment)
        if failure is not None and time.monotonic() < failure.at + AGAIN_S:
            raise RepositoryError(failure.sentence)

    def failed(self, segment: str, error: RepositoryError) -> None:
        """Note that it has failed."""
        if segment not in self._failures:
            log.error("%s Until then, the tasks that need it are not ready.", error)
        self._failures[segment] = _Failure(str(error), time.monotonic())

    def succeeded(self, segment: str) -> None:
        """Note that it has been opened."""
        if self._failures.pop(segment, None) is not None:
            log.info("Segment %r has been opened again.", segment)

    def forget(self, segments: Iterable[str]) -> None:
        """Know no more of segments that are gone."""
        for segment in segments:
            self._failures.pop(segment, None)
