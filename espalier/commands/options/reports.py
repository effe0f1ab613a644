"""What several commands say of what they did: rows, scores, versions, and cuts that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from contract.units import human_bytes, human_macs
from espalier.console import console

if TYPE_CHECKING:
    from contract.repository import Repository, Task
    from contract.repository.not_shared import NotShared
    from contract.text import TextInput
    from exporter.add import AddReport
    from exporter.build.shared_weights import StoredWeights
    from exporter.deploy import VersionChange
    from exporter.sharing.reuse import Missed

_SCORES = {
    "logits": "a softmax of the outputs",
    "probabilities": "the outputs as they are, which are probabilities",
    "independent": "the outputs as they are, each from 0 to 1 by itself",
    "log_probabilities": "exp of the outputs, which are logarithms of probabilities",
    "value": "the only number as it is",
}


def print_remarks(remarks: Iterable[str]) -> None:
    """Print what an export says of the rows of segments, a line each."""
    for remark in remarks:
        console.print(f"[yellow]Rows:[/] {escape(remark)}", soft_wrap=True)


def print_snap(report: AddReport) -> None:
    """Print that blocks took other weights where nobody asked for it but the export did."""
    if report.snap is not None:
        console.print(
            f"[yellow]As the repository was exported:[/] blocks that differ by {report.snap:g} at most take other weights; --snap 0: none "
            "does.",
            soft_wrap=True,
        )


def describe_rows(repository: Repository) -> list[str]:
    """Return one line for segments whose rows affect each other and one for those that nobody has checked, where there are any."""
    coupled, unchecked = (
        [name for name, segment in repository.segments.items() if segment.rows == word] for word in ("coupled", "")
    )
    lines = []
    if coupled:
        lines.append(f"Rows affect each other, so that one request is one run: {', '.join(coupled)}")
    if unchecked:
        lines.append(f"Never checked whether rows affect each other: {', '.join(unchecked)}; an export anew checks it")
    return lines


def print_not_shared(found: Iterable[NotShared]) -> None:
    """Print what tasks compute apart with equal, or nearly equal, weights, a line each."""
    for one in found:
        console.print(f"[yellow]Not shared:[/] {escape(f'{one}{_offer(one)}')}", soft_wrap=True)


def _offer(one: NotShared) -> str:
    """Return what would share nearly equal weights, to be said after it; "" of equal ones."""
    if not one.differences:
        return ""
    most = max(one.differences.values())
    step = 10.0 ** floor(log10(most))
    needed = f"{ceil(most / step) * step:.0e}".replace("e-0", "e-")
    return f" With --snap {needed} these would be those of {one.tasks[0]}, and the command would say by how much answers change."


def print_stored(repository: Repository, stored: StoredWeights) -> None:
    """Print what a command that wrote `repository` says of weights that several segments hold, a line each."""
    for line in describe_stored(repository):
        console.print(f"[yellow]Stored once:[/] {escape(line)}", soft_wrap=True)
    if stored.copied:
        console.print(
            f"[yellow]Stored again:[/] {human_bytes(stored.copied)} of weights that other segments hold, too, because the file system "
            "made no hard links.",
            soft_wrap=True,
        )
    if stored.again:
        console.print(
            f"[yellow]Stored again:[/] {human_bytes(stored.again)} of weights that segments which stay as they are have inside of their "
            f"models; `espalier add {escape(str(repository.path))} --recut` stores them once.",
            soft_wrap=True,
        )


def describe_stored(repository: Repository) -> list[str]:
    """Return a line for weights that are stored once though what is computed with them is not shared, where there are any."""
    from contract.weight_files import bytes_stored_once

    once = bytes_stored_once(repository)
    if not once:
        return []
    return [
        f"{human_bytes(once)} of weights less than the segments hold together, by hard links of what is equal in several of them."
    ]


def describe_copied(repository: Repository) -> list[str]:
    """Return a line for weights that were stored once, and are not in this copy of the repository, where there are any."""
    from contract.weight_files import bytes_copied

    copied = bytes_copied(repository)
    if not copied:
        return []
    return [
        f"{human_bytes(copied)} of weights are stored several times, in files of equal names that are no hard links of each other: where "
        "links cannot be made, or when the repository was copied without them (cp -a, rsync -H and tar keep "
        f"links). `espalier add {escape(str(repository.path))} --recut` links them again, where it can."
    ]


def describe_scores(tasks: Iterable[Task]) -> str | None:
    """Return how scores are made of what `tasks` answer, in a sentence; None where none of them is a classifier."""
    from contract.kinds.classes import Classes  # brings numpy, which no help text needs

    names: dict[str, list[str]] = {}
    for task in tasks:
        if task.scores and isinstance(task.answers, Classes):
            names.setdefault(_SCORES[task.scores], []).append(task.name)
    if not names:
        return None
    alone = len(names) == 1
    parts = [words if alone else f"{words} ({', '.join(members)})" for words, members in names.items()]
    return f"Scores: {'; '.join(parts)}."


def print_answers(tasks: Sequence[Task]) -> None:
    """Print how people read what `tasks` answer, and of which that is assumed."""
    from exporter.build.kinds import describe_assumed, describe_ends, describe_unsaid

    assumed = describe_assumed(tasks)
    unsaid = describe_unsaid(tasks)
    hints = (assumed and f"{assumed} --kind TASK=KIND gives another.", unsaid and f"{unsaid} --preprocessing TASK=HOW says it.")
    for sentence in (describe_scores(tasks), *describe_ends(tasks), *hints):
        if sentence:
            console.print(escape(sentence), soft_wrap=True)


def describe_texts(tasks: Iterable[Task]) -> list[str]:
    """Return a line for each way in which `tasks` take texts."""
    names: dict[TextInput, list[str]] = {}
    for task in tasks:
        if task.text is not None:
            names.setdefault(task.text, []).append(task.name)
    return [
        f"Texts: {', '.join(members)} {'take' if len(members) > 1 else 'takes'} {_tokens(text)}"
        for text, members in names.items()
    ]


def print_texts(tasks: Iterable[Task]) -> None:
    """Print how `tasks` take texts."""
    for line in describe_texts(tasks):
        console.print(escape(line), soft_wrap=True)


def _tokens(text: TextInput) -> str:
    most = "any number of tokens" if text.most is None else f"at most {text.most} tokens"
    fixed = ", and every row has so many" if text.least == text.most else ""
    apart = "" if text.padded else "; the mask does not hide padding, so only texts of equal length run together"
    return f"{most}{fixed}, by the tokenizer {text.sha256[:8]}, as {', '.join(text.names)}{apart}"


def print_missed(repo: Path, missed: Mapping[str, Missed]) -> None:
    """Print what each task computes itself for want of a cut, and how that is mended."""
    for name, one in missed.items():
        if one.blocks:
            console.print(
                f"[yellow]{escape(name)}[/] computes {one.blocks} blocks ({human_macs(one.macs)} a request, "
                f"{human_bytes(one.weight_bytes)} of weights) itself that it has in common with others, because there is no cut after "
                f"them; `espalier add {escape(str(repo))} --recut` cuts anew.",
                soft_wrap=True,
            )


def describe_versions(task: Task) -> str:
    """Return the state of `task`: which version is current, which is its canary and which is kept."""
    words = [f"version {task.version} of {task.name} is current"]
    if task.canary is not None:
        words.append(f"version {task.canary.task.version} is its canary with {100 * task.canary.share:g} % of the requests")
    if task.previous is not None:
        words.append(f"version {task.previous.version} is kept for a rollback")
    return _joined(words)


def describe_change(change: VersionChange) -> str:
    """Return the state that a task is in now, and what was let go of. One or two sentences."""
    state = describe_versions(change.after)
    if change.after == change.before:
        return f"Nothing changed: {state}."
    sentence = f"{state[0].upper()}{state[1:]}."
    left = {version.version for version in change.after.versions}
    gone = [version.version for version in (change.before.versions if change.before else ()) if version.version not in left]
    if not gone:
        return sentence
    return (
        f"{sentence} {_joined([f'version {number}' for number in gone]).capitalize()} {'is' if len(gone) == 1 else 'are'} gone."
    )


def describe_inherited(before: Task, taken: Iterable[str]) -> str:
    """Return what a model has from the version that was current `before` it came, in a sentence."""
    return f"{before.name} keeps the {_joined([*taken])} of version {before.version}, because the model brings none."


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
