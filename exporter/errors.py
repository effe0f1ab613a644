"""Every error of the exporter, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from contract.errors import EspalierError


class ExportError(EspalierError):
    """Anything that the exporter refuses or fails at, with one sentence for the user."""


class BadModel(ExportError):
    """A file is not an ONNX model that the exporter can read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class GeneratesText(BadModel):
    """A model that writes text, a token after the other."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            path,
            f"is a {kind}, which generates text token by token; give a network for sequence or token classification, or an encoder.",
        )


class BadTokenizer(BadModel):
    """A file is no tokenizer that the library of that name reads."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, f"{reason}; give the tokenizer.json of the network.")


class FolderGiven(BadModel):
    """A folder stands where a model's file is wanted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "is a folder; give the file of one model.")


class BackboneGiven(BadModel):
    """A backbone file stands where a task's is wanted."""

    def __init__(self, path: Path, task: str) -> None:
        super().__init__(path, f"is a backbone, not a task; give it as the backbone, and not as the model of task {task!r}.")


class UnsupportedModel(ExportError):
    """A readable model of a form that cannot be split: an input for all rows, a fixed batch, no shapes."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


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


class AnotherArchitecture(ExportError):
    """A task model that is no descendant of the backbone."""

    def __init__(self, name: str, blocks: int, backbone_blocks: int) -> None:
        super().__init__(
            f"Task {name!r} is another architecture than the backbone ({blocks} blocks, none of them equal to one of the backbone's "
            f"{backbone_blocks}); export it into a repository of its own, or give the backbone that it was tuned from."
        )


class NoTasks(ExportError):
    """Nothing to export."""

    def __init__(self) -> None:
        super().__init__("There is no task to export.")


class BadTaskName(ExportError):
    """A task name that cannot be a folder and a tensor name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} cannot name a task: {reason}.")


class SameOutputNames(ExportError):
    """Outputs of one network that clients could not tell apart."""

    def __init__(self, task: str, names: Iterable[str], name: str) -> None:
        listed = " and ".join(map(repr, names))
        super().__init__(f"Outputs {listed} of task {task!r} would both be called {name!r}; export the network with other names.")


class LastTask(ExportError):
    """A repository without a task is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} would hold no task any more; delete the folder if you want none of its tasks.")


class TokenizerOfNobody(ExportError):
    """A tokenizer is given for a task that does not come."""

    def __init__(self, name: str, tasks: Sequence[str]) -> None:
        super().__init__(f"A tokenizer is given for {name!r}, which is none of the tasks that come ({listed(tasks)}).")


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


class CannotRun(ExportError):
    """ONNX Runtime cannot run a model. what: which; reason: in its own words."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"ONNX Runtime cannot run {what} ({reason}).")
        self.reason = reason


class ParityError(ExportError):
    """The composed segments do not compute what the whole task model computes.

    error: their difference; limit: what is allowed for float32, both in units of the outputs' spread. other: what they were compared with.
    noise: the difference that ONNX Runtime's optimisations alone make, None when it needs them; twice that is allowed, too, up to `most`.
    """

    def __init__(self, task: str, error: float, limit: float, other: str, noise: float | None, most: float) -> None:
        alone = "are needed to run it" if noise is None else f"alone make a difference of {noise:.2e}"
        super().__init__(
            f"Task {task!r}: the composed segments differ from {other} by {error:.2e} of the outputs' spread, where ONNX Runtime's "
            f"optimisations {alone} (allowed: {limit:.0e}, or twice the latter up to {most:g}); nothing was written."
        )


class AnotherForm(ExportError):
    """A network that answers something of another shape, as it was given, than its graph says once it has been read."""

    def __init__(self, task: str, output: str, found: Sequence[int], expected: Sequence[int]) -> None:
        super().__init__(
            f"Task {task!r}: the output {output!r} of the network as it was given has the shape {list(found)} when it is run, "
            f"and not {list(expected)}, which its graph was understood to give; nothing was written."
        )


class NotDeterministic(ExportError):
    """A network that gives another answer to the same input each time. operators: through which, as far as that is known."""

    def __init__(self, name: str, operators: Sequence[str]) -> None:
        through = f" ({listed(operators)})" if operators else ""
        super().__init__(
            f"{name} gives another answer to the same input each time{through}, which cannot be checked; "
            "export the network as it is for inference, without noise, dropout or statistics of the batch."
        )


class StaysInTraining(ExportError):
    """A torch network of which a normalisation goes on normalising by the batch when the network is put into evaluation mode."""

    def __init__(self, module: str, kind: str) -> None:
        super().__init__(
            f"The network's {module!r} ({kind}) stays in training mode after eval(), so the answer to a row depends on the other rows "
            "of its batch; let eval() reach it; nothing was written."
        )


class CoupledRows(ExportError):
    """A segment in which the answer to a row depends on the other rows of its batch. operators: through which, if that is known."""

    def __init__(self, segment: str, operators: Sequence[str], error: float) -> None:
        through = listed(operators) or "something that no rule found"
        by = f" (by {error:.1e} of the outputs' spread)" if isfinite(error) else ""
        super().__init__(
            f"Segment {segment!r}: the answer to a row depends on the other rows of its batch, through {through}{by}, so no request may "
            f"be batched with others; {_way_out(through)}allow coupled rows, and each request runs by itself."
        )


class UncountableShapes(ExportError):
    """Shapes that the exporter needs could not be inferred."""

    def __init__(self, name: str, values: Iterable[str]) -> None:
        super().__init__(
            f"{name}: no shape could be inferred for {', '.join(list(values)[:3])}; export the model with shape information."
        )


class TooFewSegments(ExportError):
    """The most segments that may be are fewer than what the tasks come down to."""

    def __init__(self, limit: int, possible: int) -> None:
        super().__init__(f"The tasks cannot be exported as {limit} segments; {possible} is the fewest that was found.")


class NoScratch(ExportError):
    """No folder for the weights that are being worked on."""

    def __init__(self, place: Path) -> None:
        super().__init__(f"There is no folder for temporary files, and {place} cannot be written; let TMPDIR name one that can.")


class UnknownCutRule(ExportError):
    """A repository that was cut by a rule of another version."""

    def __init__(self, path: Path, rule: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{path} was cut by the rule {rule!r}, which this version does not know; name one of: {', '.join(known)}."
        )


class DamagedSegment(ExportError):
    """A segment does not compute what its configuration says. files: of it, which were changed, one of them at least."""

    def __init__(self, name: str, files: Sequence[str] = ("model.onnx",)) -> None:
        otherwise = ", or written by another version of espalier" if "model.onnx" in files else ""
        super().__init__(
            f"Segment {name!r} does not compute what its config.pbtxt says (another digest): its {' or its '.join(files)} was changed"
            f"{otherwise}; export the repository again."
        )


class DamagedTask(ExportError):
    """A task does not answer what was recorded when it was exported. segments: of it, those whose digest cannot be compared."""

    def __init__(self, name: str, segments: Sequence[str]) -> None:
        super().__init__(
            f"Task {name!r} does not answer what its config.pbtxt recorded of it: one of its segments ({listed(segments)}) was changed; "
            "export the repository again."
        )


class TaskExists(ExportError):
    """A task of that name is in the repository."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Task {name!r} is in the repository already; choose another name, or have it replaced.")


class NonFiniteWeights(ExportError):
    """A weight of a model is NaN or infinite: its training diverged, or the file is damaged."""

    def __init__(self, where: str, tensor: str) -> None:
        super().__init__(
            f"{where}: the tensor {tensor!r} holds NaN or infinite values; a network with such weights answers nothing."
        )


class BadCode(ExportError):
    """A Python callable that was to return a network does not."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: {reason.rstrip('.')}; name a callable that returns a torch.nn.Module as package.module:callable."
        )


class FailingForward(ExportError):
    """A torch network whose own code raises. shape: of the batch that it was given; said: what it raised."""

    def __init__(self, name: str, shape: Sequence[int], kind: str, said: str) -> None:
        last = said.strip().splitlines()[-1].strip().rstrip(".") if said.strip() else "without a word"
        super().__init__(f"{name} raises {kind} for a batch of shape {tuple(shape)}: {last}.")


class UnsupportedOutput(ExportError):
    """A torch network that returns something that is no answer to a row, or one twice. instead: what would be right."""

    def __init__(
        self,
        name: str,
        what: str,
        instead: str = "let it return a tensor, or a dict or a tuple of tensors, with a row for each image",
    ) -> None:
        super().__init__(f"{name} returns {what}; {instead}.")


class UnknownInput(ExportError):
    """A network whose images are described nowhere. options: the fields of InputOptions that are missing."""

    def __init__(self, name: str, options: Sequence[str]) -> None:
        super().__init__(f"{name} does not say what images it takes; give {' and '.join(options)}.")
        self.options = tuple(options)


class NeedsBackbone(ExportError):
    """A task of weights alone, without the network that they belong to."""

    def __init__(self, task: str, file: Path) -> None:
        super().__init__(
            f"Task {task!r} is a checkpoint, {file.name}, and needs its network: give the backbone that it was tuned on, by its name or "
            f"as a backbone file, or for a whole state dict its own network, as NETWORK@{file}."
        )
        self.task, self.file = task, file


class NeedsNamedBackbone(ExportError):
    """A task checkpoint of ours beside a backbone that is no network with blocks of a known library."""

    def __init__(self, task: str) -> None:
        super().__init__(f"Task {task!r} was tuned on a timm or torchvision network; give that as the backbone, by its name.")


class LabelsDoNotFit(ExportError):
    """A task with more or fewer labels than outputs."""

    def __init__(self, task: str, labels: int, outputs: int) -> None:
        super().__init__(f"Task {task!r} has {labels} labels for {outputs} outputs.")


class LabelsOfNoClasses(ExportError):
    """Labels of a task of no kind, whose outputs are no vector of so many classes."""

    def __init__(self, task: str, labels: int, shapes: Sequence[tuple[int, ...]]) -> None:
        described = " and ".join(str(list(shape)) for shape in shapes)
        super().__init__(f"Task {task!r} has {labels} labels for outputs of shape {described} per row.")
        self.task = task


class KindOfAnother(ExportError):
    """A kind that the network of a task cannot be of. reason: a clause about the task."""

    def __init__(self, task: str, kind: str, reason: str) -> None:
        super().__init__(f"Task {task!r} cannot be of the kind {kind!r}: it {reason}.")


class RefusedModel(ExportError):
    """A model that was refused when it was tried out in a process of its own, in the words that were said there."""


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


class BadSnap(ExportError):
    """A difference between weights for which none may be taken for another."""

    def __init__(self, snap: float, most: float) -> None:
        super().__init__(
            f"Weights that differ by {snap:g} of the largest one cannot be taken for each other; give more than 0 and at most {most:g}."
        )


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


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return `names` as words, the first `most` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _way_out(operators: str) -> str:
    """Return what to do about `operators`, in the words of `exporter.graph.coupling`."""
    if "in training mode" in operators:
        return "export the network in evaluation mode, or "
    if "without running statistics" in operators:
        return "train it with track_running_stats=True, or "
    return ""
