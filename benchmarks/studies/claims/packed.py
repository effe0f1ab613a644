"""A search's ledger in few bytes: what is the same in all lines is said once, blocks are numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuning.search.ledger import BlockFacts, Header, LedgerContents, Trial
from tuning.search.proxy import Proxy
from tuning.search.score import Subset, SubsetCost

_LOSS_DIGITS = 5


def pack(contents: LedgerContents) -> dict[str, Any]:
    """Return a ledger as plain JSON: its header, trials and proxies. Costs and notes are left out."""
    names = [block.name for block in contents.header.blocks]
    return {
        "header": {**asdict(contents.header), "versions": {}},
        "trials": sorted((_trial(trial, names) for trial in contents.trials), key=_place),
        "proxies": sorted((_proxy(proxy, names) for proxy in contents.proxies), key=_place),
    }


def unpack(packed: Mapping[str, Any], shares: Mapping[str, float] | None = None, head: float = 0.0) -> LedgerContents:
    """Return the ledger again. shares: of the backbone's MACs that serving adds, by the first tuned "
    "block; they become costs."""
    fields = packed["header"]
    header = Header(**{**fields, "blocks": tuple(BlockFacts(**block) for block in fields["blocks"])})
    names = [block.name for block in header.blocks]
    trials = tuple(_trial_again(row, names, header) for row in packed["trials"])
    proxies = tuple(_proxy_again(row, names, header) for row in packed["proxies"])
    costs: dict[Subset, SubsetCost] = {}
    if shares is not None:
        for subset in {trial.subset for trial in trials}:
            share = shares[subset[0]] if subset else head
            costs[subset] = SubsetCost(round(share * header.macs), 0, share, 0.0)
    return LedgerContents(header, trials, costs, (), proxies)


def _place(row: Sequence[Any]) -> tuple[int, list[int], int]:
    """Return what rows are sorted by, as trainings side by side end in any order: subset and fold."""
    return len(row[1]), row[1], row[2]


def _numbers(subset: Sequence[str], names: Sequence[str]) -> list[int]:
    return [names.index(block) for block in subset]


def _trial(trial: Trial, names: Sequence[str]) -> list[Any]:
    took = (trial.epochs, trial.lr, trial.seconds, trial.macs, trial.processor_s)
    learnt = (trial.train_images, round(trial.accuracy, 6), round(trial.loss, _LOSS_DIGITS))
    return [trial.method, _numbers(trial.subset, names), trial.fold, *learnt, *took]


def _trial_again(row: Sequence[Any], names: Sequence[str], header: Header) -> Trial:
    method, subset, fold, images, accuracy, loss, epochs, lr, seconds, macs, processor_s = row
    blocks = tuple(names[index] for index in subset)
    return Trial(method, blocks, fold, header.seed, images, accuracy, loss, epochs, lr, seconds, macs, processor_s=processor_s)


def _proxy(proxy: Proxy, names: Sequence[str]) -> list[Any]:
    values = {measure: [float(f"{number:.6g}") for number in numbers] for measure, numbers in proxy.values.items()}
    took = (proxy.epochs, proxy.lr, proxy.seconds, proxy.macs, proxy.processor_s)
    return [proxy.name, _numbers(proxy.subset, names), proxy.fold, proxy.train_images, values, *took]


def _proxy_again(row: Sequence[Any], names: Sequence[str], header: Header) -> Proxy:
    name, subset, fold, images, values, epochs, lr, seconds, macs, processor_s = row
    blocks = tuple(names[index] for index in subset)
    measured = {measure: tuple(numbers) for measure, numbers in values.items()}
    return Proxy(name, blocks, fold, header.seed, images, measured, epochs, lr, seconds, macs, processor_s)
