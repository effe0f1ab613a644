"""What networks take: images, texts and tensors that go together or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.errors.base import ExportError, listed


class DifferentInput(ExportError):
    """A backbone that takes what no task of a repository takes, so that a task of it would share nothing."""

    def __init__(self, found: str, expected: Sequence[str]) -> None:
        super().__init__(
            f"The backbone takes {found}, but the tasks of the repository take {' or '.join(expected)}; a task of it would share nothing, "
            "so give it the same image size and preprocessing."
        )


class AmbiguousInput(ExportError):
    """Inputs of a network that may be one of several of the repository's, or of which several may be one. may_be: the repository's."""

    def __init__(self, task: str, names: Sequence[str], described: str, may_be: Sequence[str]) -> None:
        which = f"input {names[0]!r}" if len(names) == 1 else f"inputs {' and '.join(map(repr, names))}"
        super().__init__(
            f"The {which} of {task!r} ({described}) may be {' or '.join(map(repr, may_be))} of the others; say which input that is, or "
            "give it a name of its own."
        )
        self.task, self.name = task, names[0]


class UnknownInputName(ExportError):
    """A name is given to an input that a network does not have. there: those that it has; none: there is no such network."""

    def __init__(self, task: str, name: str, there: Sequence[str]) -> None:
        if there:
            has = f"has no input {name!r}; it takes {' and '.join(map(repr, there))}"
        else:
            has = f"is not among the networks that come, so that its input {name!r} cannot be named"
        super().__init__(f"{task!r} {has}.")


class OtherInputType(ExportError):
    """An input is to be one of the repository's that takes something else."""

    def __init__(self, task: str, name: str, found: str, other: str, expected: str) -> None:
        super().__init__(
            f"The input {name!r} of {task!r} takes {found}, but {other!r} takes {expected}; they cannot be one input."
        )


class InputTwice(ExportError):
    """Two inputs of one network would be one of the repository."""

    def __init__(self, task: str, name: str) -> None:
        super().__init__(
            f"Two inputs of {task!r} would both be {name!r}; a request brings one tensor of a name, so give one another name."
        )


class DifferentImages(ExportError):
    """Tuned tasks whose checkpoints say different things about their images; images: per task, what it takes."""

    def __init__(self, images: Mapping[str, str]) -> None:
        listed = ", ".join(f"{name} on {words}" for name, words in images.items())
        super().__init__(
            f"The tasks were tuned on different images: {listed}; all tasks of one repository take the same, so tune them alike, "
            "or export them into repositories of their own."
        )


class ContradictsTask(ExportError):
    """An option (a field of InputOptions) says something else about the images than a tuned task's checkpoint."""

    def __init__(self, option: str, given: str, task: str, found: str) -> None:
        super().__init__(
            f"{option} says {given}, but task {task!r} was tuned on {found}; leave {option} out, or tune the task on such images."
        )
        self.options = (option,)


class UnlikeRepository(ExportError):
    """A tuned task takes other images than the tasks on its backbone that are there."""

    def __init__(self, task: str, found: str, there: str, expected: str) -> None:
        super().__init__(
            f"Task {task!r} was tuned on {found}, but {there!r}, which is there on the same backbone, takes {expected}; tune it on such "
            "images, or export it into a repository of its own."
        )


class TokenizerOfNobody(ExportError):
    """A tokenizer is given for a task that does not come."""

    def __init__(self, name: str, tasks: Sequence[str]) -> None:
        super().__init__(f"A tokenizer is given for {name!r}, which is none of the tasks that come ({listed(tasks)}).")


class GivenToNobody(ExportError):
    """Something is given for a task that does not come. what: a kind, ..."""

    def __init__(self, what: str, name: str, tasks: Sequence[str]) -> None:
        super().__init__(f"{what} is given for {name!r}, which is none of the tasks that come ({listed(tasks)}).")


class PreprocessingDoesNotFit(ExportError):
    """A preprocessing that is none, or that a task's network cannot have. reason: a clause."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(f"The preprocessing that is given for task {task!r} does not do: {reason.rstrip('.')}.")


class NotForTexts(ExportError):
    """A task that gets a tokenizer and has an input that no tokenizer fills. what: its type and shape."""

    def __init__(self, task: str, name: str, what: str) -> None:
        super().__init__(
            f"Task {task!r} takes {name!r} ({what}), which no tokenizer gives: it gives rows of integers for input_ids, attention_mask and "
            "token_type_ids; export the network with these inputs alone, or without a tokenizer."
        )


class NoPadding(ExportError):
    """A task that takes rows of one length and no mask, and a tokenizer that cannot fill them up."""

    def __init__(self, task: str, tokenizer: str) -> None:
        super().__init__(
            f"Task {task!r} takes texts of one length and no mask, and {tokenizer} names no token that fills up; save the tokenizer with "
            "padding enabled, or export the network with a mask."
        )


class TokenizerDoesNotFit(ExportError):
    """A tokenizer that gives what the network of a task does not take."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(
            f"The tokenizer of task {task!r} is not that of its network: {reason}; give the one that it was trained with."
        )
