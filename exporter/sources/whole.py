"""Whole networks as they were given, run by ONNX Runtime as they are: what composed segments are compared with.

The exporter rewrites what it reads. A rewriting that goes wrong shows only against what was there before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from contract.dtypes import BYTES, NUMPY_DTYPES, RUNTIME_DTYPES, Array
from exporter.errors import CannotRun
from exporter.sources.maps import map_outputs
from exporter.sources.runtime import open_session, run_session


@dataclass(frozen=True)
class WholeNetwork:
    """A network in an ONNX file. inputs, outputs: what the file calls those of the task, in the task's order.

    The file may have other inputs, which nothing uses or which are weights with a value of their own, and a fixed batch size. Of a map of
    classes per row that it gives, the task has the vector that this is made of.
    what: how a sentence calls it.
    """

    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    what: str = "the whole network as it was given"


class WholeSession:
    """Runs `network` on rows as its task takes them. optimised: by the graph that ONNX Runtime makes of it, not as it is written.

    Raises CannotRun when ONNX Runtime cannot run the file, or the file lacks an input or output.
    """

    def __init__(self, network: WholeNetwork, *, optimised: bool = True) -> None:
        self._network = network
        self._session = open_session(network.file, optimised=optimised)
        self._takes: list[ort.NodeArg] = self._session.get_inputs()
        self._maps = map_outputs(network.file) if any("map(" in spec.type for spec in self._session.get_outputs()) else {}
        self._check_names("input", network.inputs, [spec.name for spec in self._takes])
        self._check_names("output", network.outputs, [*self._maps, *(spec.name for spec in self._session.get_outputs())])
        self._fixed_rows = next((size for spec in self._takes if isinstance(size := _first(spec, network.inputs), int)), None)

    @property
    def takes_one(self) -> bool:
        """Return whether the file takes one row and no more."""
        return self._fixed_rows == 1

    @property
    def gives(self) -> tuple[str, ...]:
        """Return all that the file gives as tensors of numbers, or as maps of them, by name."""
        dtypes = {spec.name: RUNTIME_DTYPES.get(spec.type, BYTES) for spec in self._session.get_outputs()}
        return (*(name for name, dtype in dtypes.items() if dtype != BYTES), *self._maps)

    def run(self, rows: Sequence[Array], outputs: Sequence[str] | None = None) -> tuple[Array, ...]:
        """Return the outputs, of shape (n, ...) each, for `rows`, one array of shape (n, ...) for each input of the task.

        outputs: others than the network's. A network of a fixed batch size is run as often as the rows need, the last time with some of
        them twice.
        """
        wanted = self._network.outputs if outputs is None else outputs
        if not wanted:
            return ()  # ONNX Runtime gives all outputs to whoever asks for none
        count = len(rows[0])
        size = self._fixed_rows or count
        starts = range(0, count, size)
        pieces = [self._run([values[np.arange(start, start + size) % count] for values in rows], wanted) for start in starts]
        return tuple(np.concatenate(parts)[:count] for parts in zip(*pieces, strict=True))

    def _run(self, rows: Sequence[Array], wanted: Sequence[str]) -> list[Array]:
        given = dict(zip(self._network.inputs, rows, strict=True))
        fed = {
            spec.name: _as_taken(given[spec.name], spec) if spec.name in given else self._made_up(spec, len(rows[0]))
            for spec in self._takes
        }
        names = [self._maps[name].name if name in self._maps else name for name in wanted]
        outputs = run_session(self._session, fed, self._network.what, names)
        tensors = [
            self._maps[name].vectors(output) if name in self._maps else output
            for name, output in zip(wanted, outputs, strict=True)
        ]
        return [self._with_rows(output) for output in tensors]

    def _with_rows(self, output: Array) -> Array:
        """Return `output` as the task gives it: with an axis of rows, which a file for one row may squeeze, and one of numbers."""
        rows = output[np.newaxis] if self.takes_one and output.shape[:1] != (1,) else output
        return rows.reshape(-1, 1) if rows.ndim < 2 else rows

    def _made_up(self, spec: ort.NodeArg, count: int) -> Array:
        """Return zeros for an input that nothing uses: its own sizes, `count` for an open one in front, 1 for others."""
        name = RUNTIME_DTYPES.get(spec.type)
        if name is None:
            raise CannotRun(self._network.what, f"its input {spec.name!r}, which nothing uses, is a {spec.type}")
        shape = [size if isinstance(size, int) else 1 if axis else count for axis, size in enumerate(spec.shape)]
        return np.full(shape, "" if name == BYTES else 0, NUMPY_DTYPES[name])

    def _check_names(self, kind: str, wanted: Sequence[str], there: Sequence[str]) -> None:
        for name in wanted:
            if name not in there:
                raise CannotRun(self._network.what, f"it has no {kind} {name!r}")


def _first(spec: ort.NodeArg, used: Sequence[str]) -> object:
    return spec.shape[0] if spec.name in used and spec.shape else None


def _as_taken(values: Array, spec: ort.NodeArg) -> Array:
    """Return `values` without the axis that a task gives to an input of one number a row."""
    return values[:, 0] if len(spec.shape) == 1 and values.ndim == 2 else values
