"""Which segments a server has open, from the order in which tasks were asked: the rule of the session store, without sessions."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from contract.repository import Repository, Task
from serving.engines.onnxruntime.session import memory_of
from serving.engines.sessions.runtime import SegmentFile


class OpenSegments:
    """The open segments of a server of `repository` that has just started. limit_bytes: as `--memory-limit`; None: no limit.

    Right as long as requests come one after the other: of several at once it is not known which uses a segment last.
    """

    def __init__(self, repository: Repository, limit_bytes: int | None) -> None:
        self._sizes = _sizes(repository)
        self._limit = sum(self._sizes.values()) if limit_bytes is None else limit_bytes
        self._open: OrderedDict[str, int] = OrderedDict()  # by when they were used last
        uses = Counter(step.segment for task in repository.tasks.values() for step in task.steps)
        for name in sorted(self._sizes, key=lambda name: -uses[name]):
            if self.bytes + self._sizes[name] <= self._limit:
                self._open[name] = self._sizes[name]

    @property
    def bytes(self) -> int:
        """Return what the open segments take, as the server counts it."""
        return sum(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, task: Task) -> int:
        """Return how many segments `task` opens when it is asked now."""
        opened = 0
        for step in task.steps:
            if step.segment not in self._open:
                opened += 1
                self._make_room(self._sizes[step.segment])
                self._open[step.segment] = self._sizes[step.segment]
            self._open.move_to_end(step.segment)
        return opened

    def _make_room(self, size: int) -> None:
        while self._open and self.bytes + size > self._limit:
            self._open.popitem(last=False)


def _sizes(repository: Repository) -> Mapping[str, int]:
    used = {step.segment for task in repository.tasks.values() for step in task.steps}
    segments = [segment for name, segment in repository.segments.items() if name in used]
    return {segment.name: memory_of(SegmentFile(segment, repository.model_file(segment.name))) for segment in segments}
