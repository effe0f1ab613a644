"""Which waiting step runs next, and together with which others: fair between tenants, one segment per run. No threads, no clocks.

Start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996): every tenant has a virtual time, the compute seconds it was charged. The tenant
with the smallest goes first; one that was idle starts where the others are, so that idleness earns nothing. A tenant is the model that
clients call: one that floods the server waits for itself. Within a tenant the oldest request goes first, and a request that has begun
before one that has not; a smaller priority number goes before a larger one, whoever asks.
What a run has room for is filled with other steps of the same segment, in the same order, whoever's they are, where sizes are free those
of the same shape. A step of a segment whose rows affect each other takes all the room.
"""

from __future__ import annotations

import heapq
from collections import Counter

from serving.engines.scheduling.batches import RowLimit, SegmentTimes
from serving.engines.scheduling.plan_execution import Group, PlanExecution, ReadyStep

_Key = tuple[int, int, int]  # number of the execution, index of the step, part of it: no two steps have the same
_Entry = tuple[int, _Key]  # priority first
_LEAST_PUSHES = 64  # between two clean-ups


class FairQueue:
    """Steps that wait for a worker. limit: the most rows that a segment takes in one run, by groups.

    times: by which tenants are charged beforehand; they learn from what is charged afterwards.
    """

    def __init__(self, limit: RowLimit, times: SegmentTimes | None = None) -> None:
        self._limit = limit
        # The heaps hold numbers only, so that what is taken, or forgotten, lets go of its tensors at once. What does not wait any more
        # is dropped from a heap when it comes first, or when most of the heaps is of that kind.
        self._by_tenant: dict[str, list[_Entry]] = {}
        self._by_group: dict[Group, dict[str, list[_Entry]]] = {}
        self._waiting: dict[_Key, ReadyStep] = {}
        self._steps: Counter[Group] = Counter()  # that wait
        self._room: Counter[Group] = Counter()  # that they take up
        self._pushes = 0  # since the last clean-up
        self._clock: dict[str, float] = {}  # virtual time of each tenant
        self._now = 0.0  # virtual time of the tenant that was served last
        self._times = times or SegmentTimes()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, step: ReadyStep) -> None:
        """Let `step` wait."""
        tenant, group = step.execution.call.tenant, step.group
        if not self._by_tenant.get(tenant):
            self._clock[tenant] = max(self._clock.get(tenant, 0.0), self._now)
        key = _key(step)
        entry = (step.execution.call.priority, key)
        heapq.heappush(self._by_tenant.setdefault(tenant, []), entry)
        heapq.heappush(self._by_group.setdefault(group, {}).setdefault(tenant, []), entry)
        self._waiting[key] = step
        self._steps[group] += 1
        self._room[group] += step.room
        self._pushes += 1
        if self._pushes > max(_LEAST_PUSHES, 2 * len(self._waiting)):
            self._clean_up()

    def forget(self, execution: PlanExecution) -> None:
        """Let no step of `execution` wait any more."""
        for index, step in enumerate(execution.plan.steps):
            for part in range(len(step.inputs) if step.free else 1):
                if (execution.number, index, part) in self._waiting:
                    self._pop((execution.number, index, part))

    def take(self) -> list[ReadyStep]:
        """Return the steps of the next run, all of one group; none when nothing waits.

        The first may have more rows than the segment's limit: the worker runs it in pieces.
        """
        first = self._first(self._by_tenant)
        if first is None:
            return []
        group = first.group
        self._now = max(self._now, self._clock[first.execution.call.tenant])
        batch = [first]
        self._count(first)
        room = self._limit(group) - first.room
        # The next in order, or none: a smaller one behind it must not overtake it again and again.
        while (found := self._first(self._by_group[group])) is not None and found.room <= room:
            batch.append(found)
            self._count(found)
            room -= found.room
        return batch

    def runs(self, most: int) -> int:
        """Return how many runs what waits would take now; where there are more than `most`, some number above it."""
        runs = 0
        for group, room in self._room.items():
            runs += min(self._steps[group], -(-room // self._limit(group)))  # a step is never shared out among runs
            if runs > most:
                break
        return runs

    def charge(self, batch: list[ReadyStep], seconds: float, share: float = 1.0) -> None:
        """Correct what the tenants of `batch` were charged by what its run has cost. share: of the machine, that it had meanwhile."""
        work = sum(step.work for step in batch)
        segment = batch[0].segment
        expected = self._times.per_row(segment)
        for step in batch:
            tenant = step.execution.call.tenant
            self._clock[tenant] = self._clock.get(tenant, self._now) + step.work * (share * seconds / work - expected)
        self._times.note(segment, work, seconds)

    def _pop(self, key: _Key) -> None:
        step = self._waiting.pop(key)
        group = step.group
        self._steps[group] -= 1
        self._room[group] -= step.room
        if not self._steps[group]:
            del self._steps[group], self._room[group]

    def _first(self, heaps: dict[str, list[_Entry]]) -> ReadyStep | None:
        """Return what comes first among the heaps of tenants; what is not waiting any more is dropped on the way."""
        best: tuple[int, float, _Key, str] | None = None
        for tenant in list(heaps):
            heap = heaps[tenant]
            while heap and heap[0][1] not in self._waiting:
                heapq.heappop(heap)
            if not heap:
                del heaps[tenant]
                continue
            rank = (heap[0][0], self._clock[tenant], heap[0][1], tenant)
            if best is None or rank < best:
                best = rank
        return self._waiting[heaps[best[3]][0][1]] if best else None

    def _clean_up(self) -> None:
        """Drop what is not waiting any more, wherever it is in the heaps, and the tenants that would start anew anyway."""
        self._pushes = 0
        self._by_tenant = self._still_waiting(self._by_tenant)
        kept = {group: self._still_waiting(heaps) for group, heaps in self._by_group.items()}
        self._by_group = {group: heaps for group, heaps in kept.items() if heaps}
        ahead = {tenant: clock for tenant, clock in self._clock.items() if clock > self._now or tenant in self._by_tenant}
        self._clock = ahead

    def _still_waiting(self, heaps: dict[str, list[_Entry]]) -> dict[str, list[_Entry]]:
        # What is sorted is a heap.
        kept = {tenant: sorted(entry for entry in heap if entry[1] in self._waiting) for tenant, heap in heaps.items()}
        return {tenant: heap for tenant, heap in kept.items() if heap}

    def _count(self, step: ReadyStep) -> None:
        """Take `step` out, and charge its tenant what it is expected to cost."""
        self._pop(_key(step))
        self._clock[step.execution.call.tenant] += step.work * self._times.per_row(step.segment)


def _key(step: ReadyStep) -> _Key:
    return step.execution.number, step.index, step.part
