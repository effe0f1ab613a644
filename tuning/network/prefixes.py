"""What training puts before the names of a network's tensors, and whether the names that are left are the network's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from tuning.network.blocks import find_head, is_under

# What DataParallel, torch.compile, and Lightning and others, put before every name.
_PREFIXES = re.compile(r"(?:module|_orig_mod|model)\.")
_COMPILED = "_orig_mod."  # also inside of names, where a part of the network was compiled
# BatchNorm's counter: nothing that is computed in evaluation mode depends on it, and torch's strict loader lets it lack.
_BATCHES = "num_batches_tracked"


@dataclass(frozen=True)
class WantedNames:
    """The names of a network's tensors. optional: the paths of its head, whose tensors may have other names, or lack."""

    names: frozenset[str]
    optional: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: nn.Module) -> WantedNames:
        """Return those of `network`."""
        return cls(frozenset(network.state_dict()), find_head(network))

    def fit(self, given: Collection[str]) -> bool:
        """Return whether `given` are all of the names and no others, but for the head's and BatchNorm's counters."""
        lacking = self.names.difference(given, self.counters)
        return all(is_under(name, self.optional) for name in (*lacking, *set(given).difference(self.names)))

    @property
    def counters(self) -> frozenset[str]:
        """The names of BatchNorm's counters of batches."""
        return frozenset(name for name in self.names if name.rpartition(".")[2] == _BATCHES)


@dataclass(frozen=True)
class Renamed:
    """names: by the network's name, that in the file. prefix: what was taken off. left_out: what is there besides."""

    names: Mapping[str, str]
    prefix: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """What was done to the names, as what is said after the file's: "" if nothing was."""
        if self.left_out:
            more = ", ..." if len(self.left_out) > 1 else ""
            return f"the tensors under {self.prefix!r} are taken, without {len(self.left_out)} others ({self.left_out[0]}{more})."
        return f"{self.prefix!r} is taken off the names of its tensors." if self.prefix else ""


def take_off_prefixes(given: Collection[str], wanted: WantedNames | None) -> Renamed:
    """Return `given` without what training put before each of them, as far as it takes for them to be `wanted`.

    What only some of them begin with is taken off if these are then all that is wanted. Where nothing makes them fit, what comes nearest
    is returned. None: as far as it goes.
    """
    stages = _stages(Renamed({name: name for name in given}))
    if wanted is None:
        return stages[-1]
    tried = [*stages, *_parts(given), *_compiled_inside(given)]
    fitting = (renamed for renamed in tried if wanted.fit(renamed.names))
    return next(fitting, None) or max(stages, key=lambda renamed: len(wanted.names.intersection(renamed.names)))


def _stages(whole: Renamed) -> list[Renamed]:
    """Return `whole`, and what is left after each prefix that all names have."""
    stages = [whole]
    while (begun := _PREFIXES.match(next(iter(stages[-1].names), ""))) and all(n.startswith(begun[0]) for n in stages[-1].names):
        names = {name.removeprefix(begun[0]): old for name, old in stages[-1].names.items()}
        stages.append(Renamed(names, stages[-1].prefix + begun[0]))
    return stages


def _parts(given: Collection[str]) -> Iterable[Renamed]:
    """Yield, for each prefix that some of `given` have, these without it."""
    begun = {match[0] for name in given if (match := re.match(f"{_PREFIXES.pattern}+", name))}
    for prefix in sorted(begun, key=lambda text: (len(text), text)):
        names = {name.removeprefix(prefix): name for name in given if name.startswith(prefix)}
        yield Renamed(names, prefix, tuple(name for name in given if not name.startswith(prefix)))


def _compiled_inside(given: Collection[str]) -> list[Renamed]:
    """Return the stages of `given` without what torch.compile puts before the names of a part, unless two become one."""
    names = {name.replace(_COMPILED, ""): name for name in given}
    if len(names) < len(given) or not any(_COMPILED in name for name in given):
        return []
    return _stages(Renamed(names, _COMPILED))
