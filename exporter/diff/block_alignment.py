"""Aligns the blocks of two networks: which block of one stands where which block of the other stood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from exporter.graph.chain import Block

BlockPair = tuple[Block | None, Block | None]
_Key = Callable[[Block], str]


def align_blocks(left: Sequence[Block], right: Sequence[Block]) -> list[BlockPair]:
    """Return the blocks of both in order, side by side; None stands for a block that only the other has.

    Blocks with equal weights find each other first, so that a block that was inserted between others of its kind is told from them;
    then blocks of equal structure; what is left between them is paired from the end, where a head stands against a head.
    """
    return list(_align_by(left, right, (lambda block: block.digest, lambda block: block.structure)))


def _align_by(left: Sequence[Block], right: Sequence[Block], keys: Sequence[_Key]) -> Iterable[BlockPair]:
    if not keys:
        yield from reversed(list(zip_longest(reversed(left), reversed(right))))
        return
    key, *others = keys
    matcher = SequenceMatcher(None, [key(block) for block in left], [key(block) for block in right], autojunk=False)
    done_left = done_right = 0
    for match in matcher.get_matching_blocks():  # the last one is empty and at the end
        yield from _align_by(left[done_left : match.a], right[done_right : match.b], others)
        done_left, done_right = match.a + match.size, match.b + match.size
        yield from zip(left[match.a : done_left], right[match.b : done_right], strict=True)
