"""What the commands say about the versions of a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contract.repository import Task
    from exporter.deploy import VersionChange


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
