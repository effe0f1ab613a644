"""Tensors by key, within a number of bytes; those that are asked for again stay longest. No threads, no clocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from contract.dtypes import Array

# Of an entry beside the values: key, entry, array, and its places in the tables. 790 measured; more segments on the way take no more.
ENTRY_BYTES = 1024
_LASTING = 0.8  # of the bytes, at most, are for what has been asked for again


@dataclass(frozen=True, slots=True)
class _Entry:
    values: Array
    segments: frozenset[str]
    bytes: int


class KeptTensors:
    """At most `limit_bytes` of arrays, with all that they take. An array that is kept belongs to it: nobody may write to it.

    A segmented LRU (Karedla, Love and Wherry, 1994): what has not been asked for again since it came makes room first, so that inputs that
    never come again drive nothing out that does.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.evictions = 0
        self._new: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lasting: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lasting_bytes = 0
        self._keys: dict[str, set[bytes]] = {}  # by segment

    def __len__(self) -> int:
        return len(self._new) + len(self._lasting)

    def get(self, key: bytes) -> Array | None:
        """Return what is kept under `key`, None: nothing. That it was looked at does not count."""
        entry = self._lasting.get(key) or self._new.get(key)
        return None if entry is None else entry.values

    def used(self, keys: Iterable[bytes]) -> None:
        """Note that somebody has taken what is kept under `keys`; those that are kept no more are passed over."""
        for key in keys:
            if key in self._lasting:
                self._lasting.move_to_end(key)
            elif entry := self._new.pop(key, None):
                self._lasting[key] = entry
                self._lasting_bytes += entry.bytes
        while self._lasting_bytes > _LASTING * self.limit_bytes:
            key, entry = self._lasting.popitem(last=False)
            self._lasting_bytes -= entry.bytes
            self._new[key] = entry  # the last to go of those

    def put(self, key: bytes, values: Array, segments: frozenset[str]) -> bool:
        """Keep `values`, which `segments` have made, and let go of others for it; return False where it is larger than all may be."""
        size = values.nbytes + ENTRY_BYTES
        if size > self.limit_bytes:
            return False
        self._remove(key)
        while self.bytes + size > self.limit_bytes:
            self._remove(next(iter(self._new or self._lasting)))
            self.evictions += 1
        self._new[key] = _Entry(values, segments, size)
        self.bytes += size
        for segment in segments:
            self._keys.setdefault(segment, set()).add(key)
        return True

    def drop(self, segments: Collection[str]) -> None:
        """Let go of what one of `segments` has made."""
        for segment in segments:
            for key in tuple(self._keys.get(segment, ())):
                self._remove(key)

    def clear(self) -> None:
        """Let go of everything."""
        self.drop(tuple(self._keys))

    def _remove(self, key: bytes) -> None:
        entry = self._new.pop(key, None)
        if entry is None:
            entry = self._lasting.pop(key, None)
            if entry is None:
                return
            self._lasting_bytes -= entry.bytes
        self.bytes -= entry.bytes
        for segment in entry.segments:
            self._keys[segment].discard(key)
            if not self._keys[segment]:
                del self._keys[segment]
