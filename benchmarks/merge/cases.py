"""What the merge benchmark measures on a network: all of it, or what the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.framework.errors import NoSuchMeasurement
from benchmarks.framework.options import Options
from benchmarks.merge.streams import Subset
from benchmarks.models.families import POOL, STEM


@dataclass(frozen=True)
class _Cases:
    """subsets: what two tasks tune. suffixes: where a frozen one begins. blocks: tuned ones, alone."""

    subsets: tuple[Subset, ...]
    suffixes: tuple[str, ...]
    blocks: tuple[str, ...]


def choose_cases(parts: Sequence[str], options: Options) -> _Cases:
    """Return the cases of the scale whose names contain a word of `options.only`, in any case; all of them without words.

    parts: of the network, in order. Names are such as "two tasks layer3.0 + layer3.1", "suffix layer4.0" and "block layer4.1". Raises
    NoSuchMeasurement.
    """
    subsets = {f"two tasks {' + '.join(subset)}": subset for subset in _subsets(parts, options)}
    suffixes = {f"suffix {part}": part for part in options.pick(("layer3.0", "layer4.0"), ("layer4.0",), ("layer4.0",))}
    blocks = {
        f"block {part}": part
        for part in options.pick(("layer2.1", "layer3.1", "layer4.0", "layer4.1"), ("layer4.1",), ("layer4.0",))
    }
    words = [word.lower() for word in options.only]
    for word in words:
        if not any(word in name for name in (*subsets, *suffixes, *blocks)):
            raise NoSuchMeasurement(word, (*subsets, *suffixes, *blocks))

    def is_chosen(name: str) -> bool:
        return not words or any(word in name for word in words)

    return _Cases(
        tuple(subset for name, subset in subsets.items() if is_chosen(name)),
        tuple(part for name, part in suffixes.items() if is_chosen(name)),
        tuple(part for name, part in blocks.items() if is_chosen(name)),
    )


def _subsets(parts: Sequence[str], options: Options) -> tuple[Subset, ...]:
    """Return the subsets that the scale measures: 28 of a ResNet-50 in full."""
    singles, pairs = single_blocks(parts), pairs_within_stages(parts)
    return options.pick((*singles, *pairs), (singles[len(singles) // 2],), singles[-1:])


def single_blocks(parts: Sequence[str]) -> tuple[Subset, ...]:
    """Return each block alone: 16 of a ResNet-50."""
    return tuple((name,) for name in parts if name not in (STEM, POOL))


def pairs_within_stages(parts: Sequence[str]) -> tuple[Subset, ...]:
    """Return the pairs of neighbouring blocks of the same stage: 12 of a ResNet-50."""
    blocks = [name for name in parts if name not in (STEM, POOL)]
    return tuple(pair for pair in pairwise(blocks) if pair[0].partition(".")[0] == pair[1].partition(".")[0])
