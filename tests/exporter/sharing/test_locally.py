"""What one more copy costs, found from the segments around it, is what finding all segments anew gives."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph.chain import Block, Chain, Tap
from exporter.graph.digests import combined_digest
from exporter.sharing.choose import CutOptions
from exporter.sharing.costs import CutCosts
from exporter.sharing.locally import LocalCosts
from exporter.sharing.occurrence import Place
from exporter.sharing.plan import make_sharing_plan
from exporter.sharing.segments import SegmentFinder
from tests.exporter.sharing.test_plan import families

COSTS = CutCosts()


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


@st.composite
def wired_families(draw: st.DrawFn) -> list[Chain]:
    """Networks of blocks with one or two inputs each, some of them equal: ways part and meet, also within a network."""
    return _wired_family(draw(st.integers(0, 10_000)), draw(st.integers(1, 4)))


def _wired_family(seed: int, size: int) -> list[Chain]:
    random = Random(seed)
    base = [
        (f"w{random.randrange(6)}", random.sample(range(-1, index), min(index + 1, random.randint(1, 2)))) for index in range(7)
    ]
    return [_wired(f"task{number}", base, number, random) for number in range(size)]


def _wired(name: str, base: list[tuple[str, list[int]]], number: int, random: Random) -> Chain:
    source = Tap("image", _hash("image"), "FLOAT", (4,))
    taps, blocks = {-1: source}, list[Block]()
    for index, (word, before) in enumerate(base):
        word = word if random.random() < 0.7 else f"{word}.{number}"
        inputs = tuple(taps[place] for place in before)
        made = {tap.address for tap in taps.values()}
        while (address := combined_digest([_hash(word), *(tap.address for tap in inputs)])) in made:
            word += " again"  # equal nodes of a network are one
        taps[index] = Tap(f"{name}.{index}", address, "FLOAT", (4,))
        weights = (0, 4, 4000)[int(_hash(word), 16) % 3]
        blocks.append(Block(index, _hash(word), _hash(word), inputs, (taps[index],), 1000, weights, weights, (word,)))
    taken = {tap.address for block in blocks for tap in block.inputs}
    return Chain(name, tuple(blocks), (source,), tuple(tap for tap in taps.values() if tap.address not in taken))


def _check_copies(chains: list[Chain], random: Random) -> int:
    """Give each way through random segments a copy, three times; return how often a part of the segments told the costs."""
    finder = SegmentFinder(chains)
    copies: dict[Place, str] = {}
    told = 0
    for _ in range(3):
        joined = finder.joined(copies, ())
        local = LocalCosts(joined, finder.users, (), COSTS.of_segment)
        assert local.total == COSTS.total(joined.models().values())
        parts = [part for parts in joined.layout().values() for part in parts]
        key = random.choice(parts).key
        new = {
            (part.chain, block.index): f"{part.key.copy}/{random.randrange(2)}"
            for part in parts
            if part.key == key
            for block in part.blocks
        }
        found = local.after(finder.changed_keys(joined, new))
        if found is not None:
            told += 1
            assert found == COSTS.total(finder.joined(copies | new, ()).models().values())
        copies |= new
    return told


@given(families(), st.integers(0, 1000))
def test_in_one_line_a_part_tells_what_all_segments_cost(family: tuple[list[Chain], Chain | None], seed: int) -> None:
    tasks, backbone = family
    _check_copies([*tasks, *([backbone] if backbone else [])], Random(seed))


@given(wired_families(), st.integers(0, 1000))
def test_where_ways_part_and_meet_a_part_tells_what_all_segments_cost(chains: list[Chain], seed: int) -> None:
    _check_copies(chains, Random(seed))


def test_a_part_is_enough_most_often() -> None:
    line = [("a", [-1]), ("b", [0]), ("c", [1])]
    families = ([_wired(f"t{number}", line, number, Random(10 * seed + number)) for number in range(4)] for seed in range(20))
    assert sum(_check_copies(family, Random(seed)) for seed, family in enumerate(families)) > 50


@given(wired_families(), st.sampled_from(("cheap", "stages")))
def test_the_plan_is_that_of_looking_at_all_segments(chains: list[Chain], rule: str) -> None:
    found = make_sharing_plan(chains, None, CutOptions(rule))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalCosts, "after", lambda self, change: None)
        assert make_sharing_plan(chains, None, CutOptions(rule)) == found  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [66, 280, 955, 1248, 5009, 5533, 7143, 8432])
def test_circles_that_no_way_goes_round_are_broken(seed: int) -> None:
    """Of two segments each takes what the other gives, by blocks that do not depend on each other: planning never came to an end."""
    chains = _wired_family(seed, 4)
    plan = make_sharing_plan(chains, None, CutOptions("cheap"))
    for chain in chains:
        there = {tap.address for tap in chain.inputs}
        for step in plan.tasks[chain.name]:
            assert there.issuperset(tap.address for tap in step.inputs)
            there.update(tap.address for tap in step.outputs)
        assert there.issuperset(tap.address for tap in chain.outputs)
