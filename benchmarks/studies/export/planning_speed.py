"""How long a sharing plan takes: pure Python on made-up chains, without graphs or weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.harness.stopwatch import Seconds, Stopwatch
from exporter.graph.chain import Block, Chain, Tap
from exporter.sharing.choose import CutOptions, CutRule
from exporter.sharing.plan import make_sharing_plan


@dataclass(frozen=True)
class PlanningCost:
    """Seconds to plan `tasks` tasks of `blocks` blocks with the cut rule `rule`, and the segments that came out."""

    rule: CutRule
    tasks: int
    blocks: int
    segments: int
    seconds: Seconds


def measure(tasks: int = 32, blocks: int = 18, rules: Sequence[CutRule] = ("cheap", "exact", "stages")) -> list[PlanningCost]:
    """Plan `tasks` tasks, each with a head and one run of blocks of its own at a random place, with each of `rules`."""
    random = Random(0)
    chains = [_random_task(index, blocks, random) for index in range(tasks)]
    backbone = make_chain("backbone", [0] * blocks)
    costs = []
    for rule in rules:
        watch = Stopwatch()
        with watch.phase("planning"):
            plan = make_sharing_plan(chains, backbone, CutOptions(rule))
        costs.append(PlanningCost(rule, tasks, blocks, len(plan.segments), watch.phases["planning"]))
    return costs


def make_chain(name: str, versions: Sequence[int]) -> Chain:
    """Return a chain whose block i has the weights number `versions[i]`; sizes and MACs are about those of a ResNet-50."""
    tap = Tap("image", _hash("source"), "UINT8", (224, 224, 3))
    source, blocks = tap, []
    for index, version in enumerate(versions):
        digest, structure = _hash(f"block {index} {version}"), _hash(f"block {index}")
        stage = 4 * index // len(versions)
        side = 56 >> stage
        end = Tap(f"{name}.{index}", _hash(digest + tap.address), "FLOAT", (256 << stage, side, side))
        parameters = 70_000 << (2 * stage)
        blocks.append(
            Block(index, digest, structure, (tap,), (end,), 220_000_000, parameters, 4 * parameters, (f"block.{index}",))
        )
        tap = end
    return Chain(name, tuple(blocks), (source,), (tap,))


def _random_task(index: int, blocks: int, random: Random) -> Chain:
    versions = [0] * blocks
    start = random.randrange(blocks - 1)
    for place in range(start, min(start + random.randint(1, 3), blocks)):
        versions[place] = index + 1
    versions[-1] = index + 1
    return make_chain(f"task-{index}", versions)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
