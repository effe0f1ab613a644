"""Says in a sentence why a cut is made or left out."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from contract.units import recorded_bytes, recorded_macs
from exporter.graph.chain import Block, Chain
from exporter.sharing.choose import CutLeftOut, CutOptions
from exporter.sharing.occurrence import BlockRun, Key, Layout, Occurrence

_SHAPES_NAMED = 3
_WORTH_SAYING = 1e-3  # of all weights: what bounds an activation is a few bytes, and is in every network
# Says by what two blocks, each given with the name of its network, differ first: "Gelu here, Erf there".
Difference = Callable[[tuple[str, Block], tuple[str, Block]], str]


def unknown_difference(ours: tuple[str, Block], theirs: tuple[str, Block]) -> str:
    """Return nothing: the difference of networks whose graphs are not at hand."""
    return ""


class Ways:
    """The ways through a layout. tasks: the chains that are exported."""

    def __init__(self, layout: Layout, tasks: Collection[str]) -> None:
        self._layout = layout
        self._here: dict[Key, set[tuple[str, ...]]] = defaultdict(set)
        self._on: dict[str, dict[Key, bool]] = defaultdict(dict)
        exported = frozenset(tasks)
        for name, part in ((name, part) for name, parts in layout.items() for part in parts):
            self._here[part.key].add(part.inputs)
            for address in part.inputs:
                self._on[address][part.key] = name in exported

    def before(self, occurrence: Occurrence) -> list[Occurrence]:
        """Return what gives `occurrence` something, in its chain."""
        return [other for other in self._layout[occurrence.chain] if not set(other.outputs).isdisjoint(occurrence.inputs)]

    def here(self, occurrence: Occurrence) -> Collection[tuple[str, ...]]:
        """Return the addresses of what the segment takes, for each of its streams."""
        return self._here[occurrence.key]

    def on(self, occurrence: Occurrence) -> dict[Key, bool]:
        """Return the segments that take something of `occurrence` in any chain, and whether the last such chain is exported."""
        found: dict[Key, bool] = {}
        for address in occurrence.outputs:
            found |= self._on.get(address, {})
        return found


def explain_cut(occurrence: Occurrence, ways: Ways, options: CutOptions) -> str:
    """Return why the network is cut in front of `occurrence`; "" at the input."""
    before = ways.before(occurrence)
    if not before:
        return ""
    cost = f"; it costs {_milliseconds(options.costs.at_cut(occurrence.taken))}"
    if len(before) > 1:
        return f"{len(occurrence.inputs)} tensors meet here{cost}"
    (source,) = before
    ways_here, ways_on = ways.here(occurrence), ways.on(source)
    if len(ways_here) > 1:
        stored = recorded_bytes(occurrence.weight_bytes)
        return f"{len(ways_here)} ways meet here: {stored} of weights are stored once and run as one batch{cost}"
    if len(ways_on) > 1:
        saved = source.macs * (len(ways_on) - 1)
        return f"{_ways(ways_on)} part here: what is before runs once, which saves {recorded_macs(saved)} a request{cost}"
    if not options.also_cut.isdisjoint(occurrence.inputs):
        return f"there was a cut here before{cost}"
    if options.rule == "stages":
        return f"a stage ends here: tasks added later find their fork{cost}"
    return f"other ways meet or part before it{cost}"


def explain_cut_left_out(cut: CutLeftOut, options: CutOptions) -> str:
    """Return where ways part or meet without a cut, and why."""
    place = cut.modules[0] if cut.modules else cut.tap.name
    if cut.kind == "fork":
        what = f"{cut.ways} ways part after {place} without a cut: each computes {recorded_macs(cut.macs)} before it"
    else:
        what = f"{cut.ways} ways meet before {place} without a cut: each holds {recorded_bytes(cut.weight_bytes)} of weights"
    if cut.seconds > 0:
        return f"{what}, which is cheaper by {_milliseconds(cut.seconds)} a request than the cut."
    why = f"--max-segments {options.max_segments}" if options.max_segments is not None else f"--cuts {options.rule}"
    return f"{what}, because of {why}; it costs {_milliseconds(-cut.seconds)} a request."


def explain_several_shapes(runs: Iterable[BlockRun]) -> str:
    """Return which weights are in several of the segments `runs` because these take other shapes, in a sentence.

    "" where none are, or next to nothing.
    """
    bytes_of: dict[str, int] = {}
    shapes_of: dict[str, set[tuple[int, ...]]] = {}
    for block in (block for run in runs for block in run if block.parameters):
        bytes_of[block.digest] = block.weight_bytes
        shapes_of.setdefault(block.digest, set()).add(block.start.shape)
    again = {digest: shapes for digest, shapes in shapes_of.items() if len(shapes) > 1}
    if not again:
        return ""
    stored = sum(bytes_of[digest] * (len(shapes) - 1) for digest, shapes in again.items())
    if stored < _WORTH_SAYING * sum(bytes_of.values()):
        return ""
    return (
        f"The same weights take rows of several shapes ({_shapes(set().union(*again.values()))}), and a model is made for one: "
        f"{recorded_bytes(stored)} of weights, in {len(again)} block{'s' if len(again) > 1 else ''}, are in several segments."
    )


def explain_computed_again(chain: Chain) -> str | None:
    """Return how much of a network is computed again in several of its blocks, in a sentence that goes on after its name; None: nothing."""
    again = sum(block.macs for block in chain.blocks) - chain.macs
    if again <= 0:
        return None
    return (
        f"computes {recorded_macs(again)} again in several segments, since what they have in common has no rows that could go from one "
        "to the other."
    )


def explain_other_operators(chain: Chain, others: Mapping[str, Chain], difference: Difference) -> str | None:
    """Return which blocks share nothing with one of `others` because of their operators, where weights are the same; None if none does."""
    for name, other in others.items():
        if pairs := list(_other_operators(chain, other)):
            ours, theirs = pairs[0]
            blocks = "1 of its blocks computes" if len(pairs) == 1 else f"{len(pairs)} of its blocks compute"
            place = ours.modules[0] if ours.modules else ours.end.name
            found = difference((chain.name, ours), (name, theirs)) or "other operators"
            what = f"{blocks} something else; the first, {place!r}, has {found}"
            return f"shares less with {name} than their equal weights would allow: {what}."
    return None


def _other_operators(chain: Chain, other: Chain) -> Iterable[tuple[Block, Block]]:
    """Yield the blocks of `chain` that have other operators than all that `other` has for itself, each with the one in its place there.

    That is one with weights of the block; or, where equal blocks with weights follow, one that takes the same. Where one of the two ends in
    front of what has no weights, as at a level that is kept for tasks to come, it is the border that differs, and no operator.
    """
    cut_short = {block.start.address for each in (chain, other) for block in each.blocks if not block.matrices and not block.macs}
    contents, others_contents = ({block.content for block in each.blocks} for each in (chain, other))
    rest = [block for block in other.blocks if block.content not in contents]
    structures = {block.structure for block in rest}
    last = max((block.index for block in chain.blocks if block.matrices and block.content in others_contents), default=0)
    for block in chain.blocks:
        if block.content in others_contents or block.structure in structures:
            continue
        with_weights = (theirs for theirs in rest if not theirs.matrices.isdisjoint(block.matrices))
        in_place = (theirs for theirs in rest if theirs.start.address == block.start.address and block.index < last)
        theirs = next(itertools.chain(with_weights, in_place), None)
        if theirs is not None and cut_short.isdisjoint((block.end.address, theirs.end.address)):
            yield block, theirs


def _shapes(shapes: Collection[tuple[int, ...]]) -> str:
    named = [str(list(shape)) for shape in sorted(shapes, reverse=True)]
    more = [f"{len(named) - _SHAPES_NAMED} more"] if len(named) > _SHAPES_NAMED else []
    return " and ".join(named[:_SHAPES_NAMED] + more)


def _ways(ways: dict[Key, bool]) -> str:
    exported = sum(ways.values())
    return f"{len(ways)} ways" if exported == len(ways) else f"{exported} way{'s' if exported > 1 else ''} and the backbone's"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 5e-6 else f"{seconds * 1e6:.1f} us"
