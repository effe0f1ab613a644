"""The shape that a Reshape makes, as constants."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.graph.passes.batch.sizes import Size


def constant_target(source: Sequence[Size] | None, result: Sequence[Size] | None) -> list[int] | None:
    """Return the shape `result` as a Reshape of `source` takes it: -1 for the one size that varies.

    Where several vary, 0 for those that are at the same place in `source`, which keeps them. None if that does not say it, or for a shape
    that is not known or has nothing in it.
    """
    if result is None:
        return None
    varying = [axis for axis, size in enumerate(result) if not size.is_constant]
    kept = [axis for axis in varying if source is not None and axis < len(source) and source[axis] == result[axis]]
    kept = kept if len(varying) > 1 else []
    target = [0 if axis in kept else -1 if axis in varying else size.offset for axis, size in enumerate(result)]
    known = all(size.offset for axis, size in enumerate(result) if axis not in varying)
    return target if known and target.count(-1) <= 1 else None
