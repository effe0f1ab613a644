"""Free sizes: axes other than the batch that a client chooses, such as the length of a text; and the values that inputs may have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FreeSize:
    """What is known of one free size. Raises ValueError unless 1 <= least <= reference <= most, and it takes its reference.

    reference: at which costs are stated, and with which a model is warmed. least, most: what the network can take; most None: nobody
    knows of a limit. step, window: of every `step` sizes from the least one on it takes the first `window`; a network that halves a height
    five times, rounded up, and doubles it again takes 31 and 32, 63 and 64.
    """

    reference: int
    least: int = 1
    most: int | None = None
    step: int = 1
    window: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.reference <= (self.reference if self.most is None else self.most):
            raise ValueError(f"a free size has reference {self.reference}, least {self.least} and most {self.most}")
        if not 1 <= self.window <= self.step or not self.takes(self.reference):
            raise ValueError(
                f"a free size has reference {self.reference}, and {self.window} of {self.step} sizes from {self.least} on"
            )

    def takes(self, size: int) -> bool:
        """Return whether the network can take `size`."""
        within = self.least <= size and (self.most is None or size <= self.most)
        return within and (size - self.least) % self.step < self.window

    def nearest(self, size: int) -> tuple[int, ...]:
        """Return the sizes that the network takes which are nearest to `size`, one below and one above, as far as there are such."""
        below = next((other for other in range(min(size, self.most or size), self.least - 1, -1) if self.takes(other)), None)
        above = next((other for other in range(max(size, self.least), self.least + size + self.step) if self.takes(other)), None)
        return tuple(dict.fromkeys(other for other in (below, above) if other is not None))


def references_of(sizes: Mapping[str, FreeSize]) -> dict[str, int]:
    """Return the reference of each free size by name."""
    return {name: size.reference for name, size in sizes.items()}


def sizes_to_json(sizes: Mapping[str, FreeSize]) -> str:
    """Return free sizes by name as JSON, "" for none."""
    facts = {name: _facts(size) for name, size in sizes.items()}
    return json.dumps(facts, sort_keys=True) if facts else ""


def sizes_from_json(text: str) -> dict[str, FreeSize]:
    """Return what `sizes_to_json` wrote. Raises ValueError."""
    try:
        return {str(name): _of_facts(fact) for name, fact in json.loads(text or "{}").items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"free sizes are {text!r}") from error


def _facts(size: FreeSize) -> dict[str, int | None]:
    """Return what is recorded of a size; of steps nothing where there are none, as in repositories of before."""
    steps = {"step": size.step, "window": size.window} if size.step > 1 else {}
    return {"reference": size.reference, "least": size.least, "most": size.most, **steps}


def _of_facts(facts: Mapping[str, Any]) -> FreeSize:
    return FreeSize(facts["reference"], facts["least"], facts["most"], facts.get("step", 1), facts.get("window", 1))


def axes_to_json(axes: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """Return the names of the axes of tensors, each with its name, as JSON; "" where no axis has one."""
    named = {name: list(names) for name, names in axes if any(names)}
    return json.dumps(named, sort_keys=True) if named else ""


def axes_from_json(text: str) -> dict[str, tuple[str, ...]]:
    """Return what `axes_to_json` wrote. Raises ValueError."""
    try:
        return {str(name): tuple(map(str, names)) for name, names in json.loads(text or "{}").items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"axes are {text!r}") from error


def ranges_to_json(ranges: Mapping[str, tuple[int, int]]) -> str:
    """Return the least and the largest value that integer tensors may have, by their names, as JSON; "" for none."""
    return json.dumps({name: list(ends) for name, ends in ranges.items()}, sort_keys=True) if ranges else ""


def ranges_from_json(text: str) -> dict[str, tuple[int, int]]:
    """Return what `ranges_to_json` wrote. Raises ValueError."""
    try:
        return {str(name): (int(least), int(most)) for name, (least, most) in json.loads(text or "{}").items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"value ranges are {text!r}") from error
