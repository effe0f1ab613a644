"""How many rows may wait, and whose: no model fills the queue for the others. No threads, no clocks.

Dynamic thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking, 1998): a model may have three rows waiting for each row that
is free. So one that floods the server has three quarters of the queue while nobody else wants any, and k of them end at 3 / (1 + 3k) of it
each: a part is free for those that begin. Nobody need know which models there are, or how many of them wait.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.errors import QueueFull

_PER_FREE_ROW = 3


def counted_rows(rows: int, own: int, others: int, limit: int) -> int:
    """Return as how many rows a request of `rows` counts while it waits; 0: it may not wait.

    own: rows of its model that wait already. others: of all other models. limit: of all together. A model with nothing waiting is let in
    as long as a row is free; what is more than its share then counts as its share.
    """
    free = limit - own - others
    room = (_PER_FREE_ROW * free - own) // (1 + _PER_FREE_ROW)  # own + room <= 3 (free - room)
    if own:
        return rows if rows <= room else 0
    return min(rows, max(room, 1)) if free > 0 else 0


class Admission:
    """Counts the rows that wait, by model. limit: of all together.

    Whoever owns it guards its changes; what only reads may be called from any thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[str, int] = {}  # of models that have any
        self._total = 0

    def check(self, model: str, rows: int) -> int:
        """Return as how many rows a request for `model` counts while it waits. Raises QueueFull when it may not wait now."""
        own, total = self._rows.get(model, 0), self._total
        counted = counted_rows(rows, own, total - own, self._limit)
        if not counted:
            raise QueueFull(own, self._limit, model=model) if own else QueueFull(total, self._limit)
        return counted

    def enter(self, model: str, rows: int, holders: int = 1) -> QueuePlace:
        """Let a request wait, until each of its `holders` has let go of its place. Raises QueueFull."""
        counted = self.check(model, rows)
        self._add(model, counted)
        return QueuePlace(self, model, counted, holders)

    def leave(self, model: str, counted: int) -> None:
        """Count these rows no more."""
        self._add(model, -counted)

    def rows(self) -> Mapping[str, int]:
        """Return the rows that wait, of each model that has any."""
        return self._rows.copy()

    def _add(self, model: str, rows: int) -> None:
        self._total += rows
        own = self._rows.get(model, 0) + rows
        if own:
            self._rows[model] = own
        else:
            del self._rows[model]


class QueuePlace:
    """One request's place in the queue, kept as long as anybody holds it. Made by `Admission.enter`."""

    __slots__ = ("_admission", "_counted", "_holders", "_model")

    def __init__(self, admission: Admission, model: str, counted: int, holders: int) -> None:
        self._admission = admission
        self._model = model
        self._counted = counted
        self._holders = holders

    def hold(self) -> None:
        """Keep it for one holder more."""
        self._holders += 1

    def let_go(self) -> None:
        """Keep it for one holder less; when that was the last, the rows count no more."""
        self._holders -= 1
        if not self._holders:
            self._admission.leave(self._model, self._counted)
