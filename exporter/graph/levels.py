"""The levels of a backbone: what a task to come may want of it, besides its answer.

Heads of dense tasks (a pyramid, a U-Net) take the last tensor of each resolution. A classifier takes none of them; so where the backbone is
exported for classifiers, its segments give these tensors, too, and a dense head that is added later finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from exporter.graph.chain import Tap

Step = tuple[Collection[Tap], Collection[Tap]]  # what a part of a network takes and gives


def find_levels(parts: Iterable[Step], inputs: Collection[Tap]) -> frozenset[str]:
    """Return the addresses of the last tensor of each resolution, but of the network's `inputs`.

    parts: of the network, cut wherever it can be. A resolution is the sizes of rows of channels first.
    """
    pairs = ((start, end) for taken, given in parts for start in taken for end in given)
    ends = (start for start, end in pairs if _resolution(start) and _resolution(start) != _resolution(end))
    return frozenset(tap.address for tap in ends) - {tap.address for tap in inputs}


def _resolution(tap: Tap) -> tuple[int, ...]:
    return tap.shape[1:] if len(tap.shape) > 2 and max(tap.shape[1:]) > 1 else ()
