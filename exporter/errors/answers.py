"""What was computed and is not what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from exporter.errors.base import ExportError, listed


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


class CoupledRows(ExportError):
    """A segment in which the answer to a row depends on the other rows of its batch. operators: through which, if that is known."""

    def __init__(self, segment: str, operators: Sequence[str], error: float) -> None:
        through = listed(operators) or "something that no rule found"
        by = f" (by {error:.1e} of the outputs' spread)" if isfinite(error) else ""
        super().__init__(
            f"Segment {segment!r}: the answer to a row depends on the other rows of its batch, through {through}{by}, so no request may "
            f"be batched with others; {_way_out(through)}allow coupled rows, and each request runs by itself."
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


def _way_out(operators: str) -> str:
    """Return what to do about `operators`, in the words of `exporter.graph.coupling`."""
    if "in training mode" in operators:
        return "export the network in evaluation mode, or "
    if "without running statistics" in operators:
        return "train it with track_running_stats=True, or "
    return ""
