"""A canary beside the current version of a task."""

from __future__ import annotations

from exporter.errors.base import ExportError


class NothingBesideCanary(ExportError):
    """A canary of a task that is not there."""

    def __init__(self, task: str) -> None:
        super().__init__(
            f"Task {task!r} is not in the repository, so a canary would stand alone; deploy it as the current version."
        )


class BadShare(ExportError):
    """A canary that would answer all requests, or none."""

    def __init__(self, share: float) -> None:
        super().__init__(f"A canary's share is more than 0 % and less than 100 % of the requests, not {100 * share:g} %.")


class DifferentAnswer(ExportError):
    """A canary whose answers have another form than those that clients were told of."""

    def __init__(self, task: str, found: str, expected: str) -> None:
        super().__init__(
            f"The canary of task {task!r} answers {found}, but the current version {expected}; clients expect one form of answer, so "
            "deploy it as the current version, or under another name."
        )


class OtherInputs(ExportError):
    """A canary that takes other tensors than the requests that it is to answer bring."""

    def __init__(self, task: str, found: str, expected: str) -> None:
        super().__init__(
            f"The canary of task {task!r} takes {found}, but the current version {expected}; a request brings what that takes, so deploy "
            "it as the current version, or under another name."
        )
