"""Ledgers of searches and comparisons that never ran, for tests of what reads them. Needs no torch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from espalier.figures.ledgers.source import Source
from tuning.search.greedy import Direction, StopRule, select
from tuning.search.ledger import BlockFacts, Header, LedgerContents, Trial, open_ledger
from tuning.search.replay import describe_selection, make_preference
from tuning.search.score import Objective, Score, Subset, SubsetCost

RESNET18 = tuple(f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2))
RESNET50 = tuple(f"layer{stage}.{block}" for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(count))
VIT = tuple(f"blocks.{block}" for block in range(12))
SWIN = tuple(f"layers.{stage}.blocks.{block}" for stage, count in enumerate((2, 2, 6, 2)) for block in range(count))
NETWORKS = {"resnet18": RESNET18, "resnet50": RESNET50, "vit_base": VIT, "swin_tiny": SWIN}
METHODS = ("linear probe", "full finetuning", "subtuning", "lp-ft", "surgical", "auto-rgn", "norm-only", "gradual unfreezing")


def make_header(
    names: Sequence[str], backbone: str = "resnet", data: str = "flowers", folds: int = 5, siamese: bool = False
) -> Header:
    """A network whose blocks have more and more parameters, as a ResNet's, and about equal MACs."""
    counts = [int(75e3 * 90 ** (place / len(names))) for place in range(len(names))]
    blocks = tuple(BlockFacts(name, counts[place], 230_000_000 + 9_000_000 * (place % 5)) for place, name in enumerate(names))
    return Header(
        backbone=backbone,
        weights=f"{backbone}.a1_in1k",
        weights_sha256="ab" * 32,
        data=data,
        data_sha256="cd" * 32,
        train_images=800,
        classes=10,
        folds=folds,
        seed=0,
        training={"epochs": 10, "siamese": siamese},
        blocks=blocks,
        macs=sum(block.macs for block in blocks) + 120_000_000,
    )


@dataclass(frozen=True)
class Fake:
    """Accuracies that a search could have found: blocks are worth something around `favourite`, the less the more there are."""

    header: Header
    favourite: float = 0.7
    probe: float = 0.81

    @property
    def names(self) -> Subset:
        return tuple(block.name for block in self.header.blocks)

    def accuracy(self, subset: Subset, fold: int) -> float:
        centre = self.favourite * (len(self.names) - 1)
        worth = [0.11 * math.exp(-(((self.names.index(name) - centre) / 3) ** 2)) - 0.01 for name in subset]
        gain = sum(each * 0.35**place for place, each in enumerate(sorted(worth, reverse=True)))
        return min(1.0, self.probe + gain - 0.002 * len(subset) + random.Random(f"{subset} {fold}").gauss(0, 0.008))

    def score(self, subset: Subset) -> Score:
        return Score(tuple(self.accuracy(subset, fold) for fold in range(self.header.folds)), self.header.folds)

    def trials(self, subsets: Iterable[Subset], folds: int | None = None) -> tuple[Trial, ...]:
        kind = "siamese subtuning" if self.header.training["siamese"] else "subtuning"
        return tuple(
            Trial(
                kind if subset else "linear probe", subset, fold, 0, 640, self.accuracy(subset, fold), 0.1, 10, 1e-3, 2.5, 10**12
            )
            for subset in subsets
            for fold in range(self.header.folds if folds is None else folds)
        )


def cost_of(header: Header, subset: Subset) -> SubsetCost:
    """Blocks from the first tuned one on, 1 ms for each."""
    first = min((i for i, block in enumerate(header.blocks) if block.name in subset), default=len(header.blocks))
    macs = sum(block.macs for block in header.blocks[first:]) + 20_000
    weights = sum(block.parameters for block in header.blocks if block.name in subset)
    whole = sum(block.parameters for block in header.blocks)
    return SubsetCost(macs, 4 * weights, macs / header.macs, weights / whole, 0.5 + len(header.blocks) - first)


def profile(header: Header, pairs: bool = False, favourite: float = 0.7) -> LedgerContents:
    fake = Fake(header, favourite)
    together = itertools.combinations(fake.names, 2) if pairs else ()
    return LedgerContents(header, fake.trials([(), *((name,) for name in fake.names), *together]))


def greedy(
    header: Header, direction: Direction = "forward", rule: StopRule | None = None, objective: Objective | None = None
) -> LedgerContents:
    """What a search without racing would leave behind."""
    rule, objective = rule or StopRule(), objective or Objective()
    fake, asked, costs = Fake(header), dict[Subset, None](), dict[Subset, SubsetCost]()

    def cost(subset: Subset) -> SubsetCost:
        return costs.setdefault(subset, cost_of(header, subset))

    def evaluate(subsets: Sequence[Subset]) -> dict[Subset, Score]:
        asked.update(dict.fromkeys(subsets))
        return {subset: fake.score(subset) for subset in subsets}

    selection = select(direction, fake.names, evaluate, rule, make_preference(objective, cost))
    return LedgerContents(header, fake.trials(asked), costs, (describe_selection(selection, rule, objective),))


def comparison(counts: Sequence[int] = (100, 200, 400, 800), seeds: int = 3, methods: Sequence[str] = METHODS) -> LedgerContents:
    """Methods that learn at their own pace, and the trainings by which one of them chose; LoRA in two ranks."""
    header = make_header(RESNET18, folds=0)
    ways = [(method, "") for method in methods] + [("lora", "rank 2"), ("lora", "rank 8")]
    trials = []
    for (place, (method, variant)), count, seed in itertools.product(enumerate(ways), counts, range(seeds)):
        noise = random.Random(f"{method} {count} {seed} {variant}").gauss(0, 0.012)
        accuracy = max(0.0, 0.97 - 0.012 * place - (2.5 + place % 3) / count**0.5 + noise)
        trials.append(Trial(method, (), None, seed, count, accuracy, 0.1, 10, 1e-3, 2.5, 10**12, variant))
    chosen_by = Trial("subtuning", (RESNET18[0],), 0, 0, 80, 0.123, 0.1, 10, 1e-3, 2.5, 10**12)
    return LedgerContents(header, (chosen_by, *trials))


def source(contents: LedgerContents, path: str = "search.jsonl") -> Source:
    return Source(Path(path), contents)


def write(contents: LedgerContents, path: Path) -> Path:
    with open_ledger(path, contents.header) as ledger:
        for trial in contents.trials:
            ledger.add(trial)
        for subset, cost in contents.costs.items():
            ledger.add_cost(subset, cost)
        for note in contents.notes:
            ledger.note(note)
    return path


def without(contents: LedgerContents, *subsets: Subset) -> LedgerContents:
    return replace(contents, trials=tuple(trial for trial in contents.trials if trial.subset not in subsets))
