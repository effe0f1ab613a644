"""Where the batch goes in a Reshape that was written for one row, which does not say."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod


def place_of_batch(axis: int, source: Sequence[int], result: Sequence[int], ahead: int) -> int | None:
    """Return the axis that the batch is on after a Reshape, None where it is torn apart.

    source, result: shapes for one row, whose batch is on `axis` of `source`, behind `ahead` entries. With one row, [17, 8] may mean
    [17 x batch, 8] or [17, 8 x batch]. A batch that was with something else on its axis goes where a one is; what follows it stays as it
    is, or else what stands before it; features, on the last axis, are not for the batch.
    """
    behind = prod(source) // max(ahead, 1)
    places = [
        place
        for place in range(len(result))
        if ahead % max(prod(result[:place]), 1) == 0 and behind % max(prod(result[place + 1 :]), 1) == 0
    ]
    kept = [place for place in places if _long(result[place + 1 :]) == _long(source[axis + 1 :])]
    exact = [place for place in places if prod(result[:place]) == ahead]
    inner = [place for place in exact if place < len(result) - 1]
    preferred = [
        *(place for place in exact if result[place] == 1 and source[axis] != 1),
        *(place for place in kept if place in exact and place == axis),
        *(place for place in kept if place in exact),
        *kept,
        *(place for place in inner if place == axis),
        *inner,
        *places,
    ]
    return preferred[0] if preferred else None


def _long(sizes: Sequence[int]) -> list[int]:
    return [size for size in sizes if size != 1]
