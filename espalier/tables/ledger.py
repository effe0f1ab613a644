"""What a ledger says, as plain data and as tables for the terminal: what was done, and what other stopping rules would choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import human_macs, percent
from espalier.figures.ledgers.facts import line_facts, macs_from_first_tuned
from espalier.figures.ledgers.source import Source
from espalier.figures.ledgers.words import DEVIATION, subset_words
from tuning.kinds.metric import metric_to_json
from tuning.search.greedy import Direction, Selection, StopRule
from tuning.search.ledger import LedgerContents
from tuning.search.replay import MissingCosts, MissingScores, noted_selections, replay
from tuning.search.score import Objective, Score, Subset


@dataclass(frozen=True)
class _Answer:
    """What a stopping rule would choose, or else what the ledger lacks to say so."""

    rule: StopRule
    selection: Selection | None
    lacks: str = ""


def answers(source: Source, direction: Direction, rules: Sequence[StopRule], objective: Objective) -> tuple[_Answer, ...]:
    """Return an answer to each rule. Raises LedgerLacks for a comparison, BadOptions when nothing is within the budget."""
    return tuple(_answer(source, direction, rule, objective) for rule in rules)


def _answer(source: Source, direction: Direction, rule: StopRule, objective: Objective) -> _Answer:
    source.require_search()
    try:
        return _Answer(rule, replay(source.contents, direction, rule, objective))
    except (MissingScores, MissingCosts) as error:
        return _Answer(rule, None, str(error))


def answers_data(source: Source, found: Sequence[_Answer]) -> list[dict[str, Any]]:
    """Return answers as plain JSON; scores by the metric's name (accuracies in [0, 1]), "value" so that more is better."""
    return [_answer_data(source, answer) for answer in found]


def _answer_data(source: Source, answer: _Answer) -> dict[str, Any]:
    rule = {"epsilon": answer.rule.epsilon, "meaning": answer.rule.meaning, "max_blocks": answer.rule.max_blocks}
    if answer.selection is None:
        return {**rule, "chosen": None, "lacks": answer.lacks}
    chosen = answer.selection.chosen
    return {
        **rule,
        "direction": answer.selection.direction,
        "chosen": list(chosen.subset),
        **_score_data(chosen.score),
        "value": chosen.value,
        "macs_share": _macs_share(source.contents, chosen.subset),
        "why": answer.selection.why,
    }


def answers_table(source: Source, found: Sequence[_Answer], objective: Objective) -> Table:
    """Return a row for each rule. The value is shown where costs weigh."""
    table = Table("epsilon", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("blocks", overflow="fold")
    metric = source.contents.header.metric
    table.add_column(f"{metric.title} {DEVIATION} deviation")
    if objective.needs_cost:
        table.add_column("plus costs" if metric.less_is_better else "less costs", justify="right")
    table.add_column("MACs", justify="right")
    table.add_column("why it stopped", overflow="fold")
    names = [block.name for block in source.contents.header.blocks]
    for answer in found:
        epsilon = f"{answer.rule.epsilon:g}"
        if answer.selection is None:
            table.add_row(epsilon, "[yellow]not in the ledger[/]")
            continue
        chosen = answer.selection.chosen
        value = [metric.words(metric.worth(chosen.value))] if objective.needs_cost else []
        share = f"{percent(_macs_share(source.contents, chosen.subset), 0)} %"
        words = escape(subset_words(chosen.subset, names, len(names)))
        table.add_row(epsilon, words, chosen.score.words, *value, share, escape(answer.selection.why))
    return table


def what_lacks(found: Sequence[_Answer]) -> list[str]:
    """Return a sentence for each thing that the ledger lacks, with the epsilons that it is lacked for."""
    epsilons: dict[str, list[str]] = {}
    for answer in found:
        if answer.selection is None:
            epsilons.setdefault(answer.lacks, []).append(f"{answer.rule.epsilon:g}")
    return [f"epsilon {', '.join(values)}: {sentence}" for sentence, values in epsilons.items()]


def summary(source: Source) -> dict[str, Any]:
    """Return what was done and found, as plain JSON. macs: multiply-accumulates that all trainings took, forward and backward.

    cheap_measurements: proxies that candidates were ranked by; epochs, seconds and macs are theirs as well.
    """
    contents, header = source.contents, source.contents.header
    facts: dict[str, Any] = {
        "backbone": header.backbone,
        "weights": header.weights,
        "data": header.data,
        "train_images": header.train_images,
        "kind": header.kind,
        "metric": metric_to_json(header.metric),
        "classes": header.classes,
        "folds": header.folds,
        "seed": header.seed,
        "training": dict(header.training),
        "trainings": len(contents.trials),
        "cheap_measurements": len(contents.proxies),
        "epochs": sum(one.epochs for one in contents.work),
        "seconds": sum(one.seconds for one in contents.work),
        "macs": sum(one.macs for one in contents.work),
    }
    return {**facts, **(_search_facts(source) if source.is_search else _comparison_facts(source))}


def _search_facts(source: Source) -> dict[str, Any]:
    scores = source.scores
    complete = {subset: score for subset, score in scores.items() if score.complete}
    singles: dict[Subset, Score] = {subset: score for subset, score in complete.items() if len(subset) == 1}
    return {
        "subsets": len(scores),
        "given_up": len(scores) - len(complete),
        "head_alone": _score_data(complete[()]) if () in complete else None,
        "best_block": _best(singles),
        "best_subset": _best(complete),
        "selections": [_answer_data(source, _Answer(noted.rule, noted.selection)) for noted in noted_selections(source.contents)],
    }


def _comparison_facts(source: Source) -> dict[str, Any]:
    if not any(trial.fold is None for trial in source.contents.trials):
        return {"methods": []}
    return {
        "methods": [
            {
                "method": line.name,
                "train_images": count,
                "seeds": len(line.accuracies[count]),
                source.contents.header.metric.name: line.mean(count),
                "deviation": line.deviation(count),
            }
            for line in line_facts(source)
            for count in line.accuracies
        ]
    }


def summary_tables(source: Source, facts: dict[str, Any]) -> tuple[Table, ...]:
    """Return the summary for people: what was done, and the selections or methods if there are any."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, words in (
        ("backbone", f"{facts['backbone']} ({facts['weights']})"),
        ("data", f"{facts['data']}, {facts['train_images']:,} training images, {facts['classes']} {facts['kind']}"),
        ("scored on", f"{source.folds} (seed {facts['seed']})" if source.is_search else "the test split"),
        ("trainings", _trainings_words(facts)),
        ("they took", f"{_duration(facts['seconds'])}, {human_macs(facts['macs'])} forward and backward"),
        *_found_words(source, facts),
    ):
        table.add_row(name, escape(words))
    return (table, *_further_tables(source, facts))


def _trainings_words(facts: dict[str, Any]) -> str:
    measured = f" and {facts['cheap_measurements']:,} cheap measurements" if facts["cheap_measurements"] else ""
    return f"{facts['trainings']:,}{measured}, {facts['epochs']:,} epochs"


def _found_words(source: Source, facts: dict[str, Any]) -> list[tuple[str, str]]:
    if not source.is_search:
        return []
    rows = [("subsets", f"{facts['subsets']:,}, {facts['given_up']:,} of them given up before all folds were run")]
    names = [block.name for block in source.contents.header.blocks]
    for key, title in (("head_alone", "head alone"), ("best_block", "best single block"), ("best_subset", "best subset")):
        found = facts[key]
        if found is not None:
            subset = f"{subset_words(tuple(found['subset']), names, len(names))}: " if "subset" in found else ""
            rows.append((title, f"{subset}{_spread(source, found)}"))
    return rows


def _further_tables(source: Source, facts: dict[str, Any]) -> list[Table]:
    names = [block.name for block in source.contents.header.blocks]
    if facts.get("selections"):
        table = Table("selected", "epsilon", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("blocks", overflow="fold")
        table.add_column(f"{source.contents.header.metric.title} {DEVIATION} deviation")
        table.add_column("why it stopped", overflow="fold")
        for made in facts["selections"]:
            words = escape(subset_words(tuple(made["chosen"]), names, len(names)))
            rule = f"{made['epsilon']:g} ({made['meaning']})"
            table.add_row(made["direction"], rule, words, _spread(source, made), escape(made["why"]))
        return [table]
    if facts.get("methods"):
        heading = f"{source.contents.header.metric.title} {DEVIATION} deviation"
        table = Table("method", "training images", "seeds", heading, box=SIMPLE_HEAD, pad_edge=False)
        for row in facts["methods"]:
            table.add_row(escape(row["method"]), f"{row['train_images']:,}", f"{row['seeds']}", _spread(source, row))
        return [table]
    return []


def _score_data(score: Score) -> dict[str, float]:
    return {score.metric.name: score.mean, "deviation": score.deviation}


def _best(scores: dict[Subset, Score]) -> dict[str, Any] | None:
    if not scores:
        return None
    best = max(scores, key=lambda subset: (scores[subset].worth, -len(subset)))
    return {"subset": list(best), **_score_data(scores[best])}


def _spread(source: Source, found: dict[str, Any]) -> str:
    metric = source.contents.header.metric
    return metric.words(found[metric.name], found["deviation"])


def _macs_share(contents: LedgerContents, subset: Subset) -> float:
    """Return the share of the backbone's MACs that serving adds: as the ledger says, else from the first tuned block on."""
    if subset in contents.costs:
        return contents.costs[subset].macs_share
    return macs_from_first_tuned(contents, subset) / max(contents.header.macs, 1)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
