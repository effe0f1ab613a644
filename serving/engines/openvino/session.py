"""One segment that OpenVINO has compiled, and its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from contract.dtypes import Array
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, Segment, segment_tensor
from serving.engines.openvino.package import openvino


class OpenVinoSession:
    """Runs `compiled`, OpenVINO's model of `segment`. Callable from several threads: each run has a request of its own.

    Raises ValueError where the model has other inputs or outputs than the segment.
    """

    def __init__(self, segment: Segment, compiled: Any) -> None:
        self._compiled = compiled
        self._tensor = openvino().Tensor
        self._inputs = _places(compiled.inputs, SEGMENT_INPUT, len(segment.inputs))
        self._outputs = _places(compiled.outputs, SEGMENT_OUTPUT, len(segment.outputs))
        self._idle: list[Any] = []  # requests, each with the memory that its last run took

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return the outputs for `inputs`, in order, each of shape (n, ...). Raises RuntimeError, OpenVINO's."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        for place, rows in zip(self._inputs, inputs, strict=True):
            request.set_input_tensor(place, self._tensor(_writable(rows), shared_memory=True))
        request.infer(share_outputs=True)
        results = [np.array(request.get_output_tensor(place).data) for place in self._outputs]  # the next run writes over them
        self._idle.append(request)
        return results


def _writable(rows: Array) -> Array:
    """Return `rows` in one piece that may be written, which OpenVINO asks for and does not do: a copy of what a message holds."""
    whole = np.ascontiguousarray(rows)
    return whole if whole.flags.writeable else whole.copy()


def _places(ports: Iterable[Any], kind: str, count: int) -> list[int]:
    """Return where the segment's tensors are among `ports`, in the order of their numbers. Raises ValueError."""
    found = {name: place for place, port in enumerate(ports) for name in port.get_names()}
    wanted = [segment_tensor(kind, index) for index in range(count)]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return [found[name] for name in wanted]
