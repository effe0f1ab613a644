"""The composed segments must compute what the whole task model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime as ort

from contract.dtypes import Array
from contract.repository import Repository, TensorSpec
from contract.repository.free_sizes import references_of
from contract.repository.model import SEGMENT_INPUT, segment_tensor
from contract.repository.reference import at_sizes
from contract.repository.rows import Run, allowed_error, largest_error
from contract.repository.sample import sample_inputs
from contract.units import listed
from exporter.build.analysis import Progress
from exporter.build.reference_outputs import SAMPLE_ROWS, TOLERANCE, ReferenceOutputs
from exporter.errors import ParityError
from exporter.sources.runtime import open_session, run_session

Look = Callable[[str, Run, Sequence[Array]], None]
Noise = Callable[[], "float | None"]


class ParityChecker:
    """Compares whole task models with their composition in `repository`. Sessions of shared segments are opened once.

    look: is shown each segment that runs, as a function that runs it, and what it is given. optimised: by the graphs that ONNX Runtime
    makes of the segments, as a server does.
    """

    def __init__(self, repository: Repository, look: Look = lambda segment, run, inputs: None, *, optimised: bool = True) -> None:
        self._repository, self._look, self._optimised = repository, look, optimised
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._samples: dict[tuple[TensorSpec, ...], Sequence[Array]] = {}

    def error(self, task: str, whole: ReferenceOutputs) -> float:
        """Return the largest difference between the composed segments of `task` and its whole network, in units of the spread.

        The spread is that at the reference sizes, also for the outputs at others.
        """
        errors = [largest_error(self.compose(task, self.sample(task)), whole.outputs)]
        for sizes, outputs in whole.elsewhere:
            errors.append(largest_error(self.compose(task, self.sample(task, sizes)), outputs, whole.outputs))
        return float(np.max(errors))

    def compose(self, task: str, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs of `task` for `inputs`, each of shape (n, ...), computed segment by segment."""
        described = self._repository.tasks[task]
        tensors: dict[str, Array] = dict(zip((spec.name for spec in described.inputs), inputs, strict=True))
        for step in described.steps:
            given = [tensors[name] for name in step.inputs]
            self._look(step.segment, partial(self._run, step.segment), given)
            tensors.update(zip(step.outputs, self._run(step.segment, given), strict=True))
        return [tensors[output.name] for output in described.outputs]

    def keep_only(self, tasks: Iterable[str]) -> None:
        """Let go of the segments that none of `tasks` uses."""
        used = {step.segment for task in tasks for step in self._repository.tasks[task].steps}
        self._sessions = {name: session for name, session in self._sessions.items() if name in used}

    def sample(self, task: str, sizes: Mapping[str, int] | None = None) -> Sequence[Array]:
        """Return SAMPLE_ROWS rows for each input of `task`. sizes: its free sizes, by default the references."""
        described = self._repository.tasks[task]
        specs = at_sizes(described.inputs, references_of(described.sizes) if sizes is None else sizes)
        if specs not in self._samples:
            self._samples = {specs: [*sample_inputs(specs, SAMPLE_ROWS).values()]}  # most often all tasks take the same
        return self._samples[specs]

    def _run(self, segment: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if segment not in self._sessions:
            self._sessions[segment] = open_session(self._repository.model_file(segment), optimised=self._optimised)
        named = {segment_tensor(SEGMENT_INPUT, index): values for index, values in enumerate(inputs)}
        return run_session(self._sessions[segment], named, segment)


@dataclass(frozen=True)
class Parity:
    """How tasks compare with what they were compared with. errors: the differences, in units of the spread.

    remarks: per task what the user should know, in sentences that go on after the task's name.
    """

    errors: Mapping[str, float]
    remarks: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Compared:
    """What the segments of a task were compared with.

    other: what it is. noise: returns the difference that ONNX Runtime's optimisations alone make, None when it needs them. most: twice that
    is allowed up to here.
    """

    other: str
    noise: Noise
    most: float = TOLERANCE


def check_error(repository: Repository, task: str, error: float, limit: float, compared: Compared) -> str:
    """Return what to say of an `error` that is over `limit`, which is meant for float32, and still no more than noise; "" if it is not.

    Outputs that hardly vary, or that a network enlarges differences into, are rounded as coarsely as this shows. Raises ParityError.
    """
    segments = [repository.segments[step.segment] for step in repository.tasks[task].steps]
    allowed = allowed_error((spec for segment in segments for spec in (*segment.inputs, *segment.outputs)), limit)
    if error <= allowed:  # NaN is an error, too
        return ""
    noise = compared.noise()
    if not is_rounding(error, noise, compared.most):
        raise ParityError(task, error, allowed, compared.other, noise, compared.most)
    return (
        f"differs from {compared.other} by {error:.1e} of the outputs' spread, which is taken for rounding: ONNX Runtime's optimisations "
        f"alone make a difference of {noise:.1e}."
    )


def is_rounding(error: float, noise: float | None, most: float) -> bool:
    """Return whether `error` is at most twice the `noise` of a network, and at most `most`. None, and NaN, are no."""
    return noise is not None and error <= 2 * noise and error <= most


def check_parity(
    repository: Repository, references: Mapping[str, ReferenceOutputs], limit: float, progress: Progress, look: Look
) -> Parity:
    """Return how each of the tasks of `references` compares with its whole model. Raises ParityError when one is over `limit`.

    look: is shown the segments, as in ParityChecker; what it raises is raised.
    """
    checker = ParityChecker(repository, look)
    tasks = list(references)
    errors: dict[str, float] = {}
    remarks: dict[str, Sequence[str]] = {}
    for index, (name, whole) in enumerate(references.items()):
        progress("Checking composed against whole", index, len(tasks))
        errors[name] = checker.error(name, whole)
        compared = Compared(whole.whole.what, partial(whole.noise, checker.sample(name)), whole.tolerance)
        remark = check_error(repository, name, errors[name], limit, compared)
        remarks[name] = [sentence for sentence in (whole.remark, remark, _steps(whole.refused)) if sentence]
        checker.keep_only(tasks[index + 1 :])
    progress("Checking composed against whole", len(tasks), len(tasks))
    return Parity(errors, remarks)


def _steps(refused: Sequence[Mapping[str, int]]) -> str:
    """Return what to say of sizes within the limits at which a network does not run; "" if there are none."""
    places = [listed([f"{name} {size}" for name, size in sizes.items()]) for sizes in refused]
    if not places:
        return ""
    return (
        f"does not run at {', nor at '.join(places)}, which is within its limits: it takes sizes in steps, as it seems, and a server fails "
        "on others."
    )
