"""The one root of all errors, and the errors of what the packages agree on. A class takes facts and writes the sentence."""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterable
from pathlib import Path

from contract.units import listed, quoted


class EspalierError(Exception):
    """Anything that espalier refuses or fails at, with one sentence for the user. limit: the name of the one that it is about, "": none."""

    limit = ""


class RepositoryError(EspalierError):
    """The folder is not a model repository that espalier can serve."""


class InvalidRequest(EspalierError):
    """The request can never succeed as it is: wrong name, dtype, shape, size or bytes."""


class UnknownTask(InvalidRequest):
    """A requested task is not in the repository. known: in the order in which they are listed."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        super().__init__(f"Unknown task {quoted(name)}; known are: {listed(known)}.")
        self.name = name


class NoTask(InvalidRequest):
    """The list of tasks is empty."""

    def __init__(self, known: Iterable[str]) -> None:
        super().__init__(f"No task was asked for; name at least one of: {listed(sorted(known))}.")


class TooMuch(InvalidRequest):
    """A request is within the limit of its bytes, but some part of it is over another one. limit: its name; text: the sentence."""

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class DifferentInputs(InvalidRequest):
    """Tasks that call different inputs by one name were asked for together."""

    def __init__(self, first: str, second: str, name: str) -> None:
        super().__init__(
            f"Tasks {first!r} and {second!r} take different inputs, which both call {name!r}; ask for them in separate requests."
        )


class EmptyText(InvalidRequest):
    """A text of which no token is left. number: which one, from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Text {number} is empty; send at least a word.")


class TextTooManyTokens(InvalidRequest):
    """A text that is longer than its network can take. number: which one, from 1."""

    def __init__(self, number: int, tokens: int, most: int) -> None:
        super().__init__(
            f"Text {number} has {tokens} tokens, and the network takes {most}; send a shorter one, or truncate: true to have its beginning "
            "answered."
        )


class LoneSurrogate(InvalidRequest):
    """A text that is none: it has half of a character."""

    def __init__(self) -> None:
        super().__init__("A text has half of a UTF-16 surrogate pair, which is no character; send whole ones.")


class TokenizerFails(InvalidRequest):
    """A text that its tokenizer cannot make ids of. number: which one, from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The tokenizer fails on text {number}; send another one.")


class ExtraNeeded(EspalierError):
    """Something was asked for that needs a package which is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} need the package {package!r}, which is not installed; run: pip install 'espalier[{extra}]'.")


class NotWritten(EspalierError):
    """A model repository cannot be written or changed; then it is as it was."""


class NewerDigests(NotWritten):
    """The digests of a repository, by which networks are compared, are of a version that this one does not know."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"{path} was written by a newer version of espalier (its digests are of version {found}, the newest known here is {known}); "
            "it can be served, but to change it or compare with it, upgrade espalier."
        )


class OutputExists(NotWritten):
    """The output folder is there already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already; choose another folder, or have it replaced.")


class NotARepository(NotWritten):
    """What would be replaced is not a model repository."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a model repository written by espalier, so it is not replaced; choose another folder.")


class ForeignFiles(NotWritten):
    """What somebody else put beside the models would go with a repository that is replaced."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        listed = ", ".join(list(names)[:3])
        super().__init__(
            f"{path} also holds what espalier did not write ({listed}), so it is not replaced; move that away first."
        )


class ChangedMeanwhile(NotWritten):
    """Somebody else wrote into the repository while its next state was built."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was changed by another program while this one worked; nothing was changed by this one, try again."
        )


class NotOurs(NotWritten):
    """The hidden folder's name is taken by something that espalier did not make."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is in the way: espalier works in a folder of that name, but did not make this one; move it away."
        )


class OthersFolder(NotWritten):
    """The hidden folder is there, and another user may have put something into it. status: the folder's."""

    def __init__(self, path: Path, status: os.stat_result) -> None:
        who = f"belongs to {_user_name(status.st_uid)}" if status.st_uid != os.geteuid() else "may be written by other users"
        super().__init__(
            f"{path} {who}: espalier works in it, and what others put there would become the repository, so nothing was changed. If "
            "nobody writes this repository now, delete that folder, and give the command again."
        )


class MountPoint(NotWritten):
    """No folder can take the place of one that is, or holds, a mounted file system."""

    def __init__(self, path: Path, mount: Path) -> None:
        super().__init__(
            f"{path} cannot be replaced as a whole, because another file system is mounted on {mount}; "
            "give a folder inside it, or unmount that; nothing was changed."
        )


class NotDurable(NotWritten):
    """The change is made, but the disk does not confirm that it has it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} was changed, but the disk does not confirm that the change would survive a power cut ({reason})."
        )


class NameTaken(NotWritten):
    """A model cannot be written where something else stands."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The repository holds something else under the name {name!r}; choose another name, or move that away.")


class NothingToRollBackTo(NotWritten):
    """A task without an earlier version and without a canary."""

    def __init__(self, task: str) -> None:
        super().__init__(f"Task {task!r} has no earlier version and no canary, so there is nothing to roll back.")


class NoCanary(NotWritten):
    """A task whose canary is asked for has none."""

    def __init__(self, task: str) -> None:
        super().__init__(f"Task {task!r} has no canary to promote; deploy one first.")


def _user_name(number: int) -> str:
    """Return what to call the user of that number in a sentence."""
    try:
        return f"user {pwd.getpwuid(number).pw_name!r}"
    except KeyError:
        return f"user {number}"
