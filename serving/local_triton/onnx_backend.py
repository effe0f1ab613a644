"""Triton's backend `onnxruntime` in Python: what the wheel that holds the server lacks.

Triton loads a copy of this file, named model.py, once per model instance, each in a process of its own, in an environment with
numpy < 2 and ONNX Runtime but without espalier: so it imports nothing of ours, and `triton_python_backend_utils`, which only Triton
has, where it is used. It serves the same `config.pbtxt` and `model.onnx` as the backend of that name in NVIDIA's container.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

THREADS_VARIABLE = "ESPALIER_TRITON_THREADS"  # Triton hands its --backend-config to no Python code; the environment it does
_DEFAULT_FILE = "model.onnx"

_Array = NDArray[Any]


class TritonPythonModel:
    """One instance of a model. The name and the methods are what Triton asks for."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model's ONNX file. Raises ValueError or ONNX Runtime's own error; Triton then says that the model did not load."""
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or _DEFAULT_FILE
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._session = ort.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        check_names(self._inputs, [value.name for value in self._session.get_inputs()], "inputs")
        # ONNX Runtime may compute more than what the configuration tells clients of.
        outputs = {value.name for value in self._session.get_outputs()}
        check_names([name for tensor in config["output"] if (name := tensor["name"]) not in outputs], [], "outputs")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer `requests`, which Triton has found to fit together, with one run; if it fails, all of them fail."""
        import triton_python_backend_utils as pb  # type: ignore[import-not-found]

        wanted = [request.requested_output_names() for request in requests]
        try:
            feeds = [{name: self._input(pb, request, name) for name in self._inputs} for request in requests]
            answers = run_together(self._session, feeds, wanted)
        except Exception as error:
            return [pb.InferenceResponse(error=pb.TritonError(f"ONNX Runtime: {error}")) for _ in requests]
        return [
            pb.InferenceResponse([pb.Tensor(name, _for_triton(value)) for name, value in answer.items()]) for answer in answers
        ]

    def _input(self, pb: Any, request: Any, name: str) -> _Array:
        return _for_onnx(pb.get_input_tensor_by_name(request, name).as_numpy())


def session_options() -> ort.SessionOptions:
    """Return the options of every session: a few threads that sleep when there is nothing to do.

    Threads that spin, as they do by default, would take the cores from the models in the other processes.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get(THREADS_VARIABLE, "1"))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def check_names(said: Sequence[str], there: Sequence[str], kind: str) -> None:
    """Raise ValueError unless the configuration and the model name the same tensors."""
    if set(said) != set(there):
        raise ValueError(
            f"the {kind} of config.pbtxt and of the ONNX model differ in {sorted(set(said) ^ set(there))}; they must be equal"
        )


def run_together(
    session: ort.InferenceSession, feeds: Sequence[Mapping[str, _Array]], wanted: Sequence[Sequence[str]]
) -> list[dict[str, _Array]]:
    """Run `session` once on the rows of all `feeds`; return for each the outputs that are `wanted` of it, in that order.

    A single feed goes in as it is, so that a model without a batch axis works, too.
    """
    names = list(dict.fromkeys(name for outputs in wanted for name in outputs))
    if len(feeds) == 1:
        return [dict(zip(names, session.run(names, dict(feeds[0])), strict=True))]
    stacked = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    found = dict(zip(names, session.run(names, stacked), strict=True))
    rows = [len(next(iter(feed.values()))) for feed in feeds]
    ends = np.cumsum(rows)
    return [
        {name: found[name][end - count : end] for name in outputs} for count, end, outputs in zip(rows, ends, wanted, strict=True)
    ]


def _for_onnx(array: _Array) -> _Array:
    """ONNX's strings are text, Triton's are bytes."""
    if array.dtype != np.object_:
        return array
    texts = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def _for_triton(array: _Array) -> _Array:
    if array.dtype != np.object_:
        return array
    return np.array([str(item).encode() for item in array.ravel()], dtype=np.object_).reshape(array.shape)
