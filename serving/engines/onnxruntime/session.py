"""One ONNX Runtime session: how it is opened and run, what it takes, and that it does what its segment's config.pbtxt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort

from contract.dtypes import Array
from contract.errors import RepositoryError
from contract.repository.model import SEGMENT_INPUT, Segment, segment_tensor
from contract.system import available_cores
from contract.weight_files import what_is_damaged
from serving.engines.device_tensors import Device, is_on_device, whole
from serving.engines.sessions.checks import check_outputs as check_outputs
from serving.engines.sessions.checks import is_small, zeros_for
from serving.engines.sessions.runtime import BundleFile, SegmentFile

# Said explicitly: builds for GPUs would try CUDA and TensorRT first and warn where there is no GPU.
PROVIDERS = ("CPUExecutionProvider",)
# What a session takes beside its weights (graph, kernels, thread, padding of packed matrices): see benchmarks/studies/session_loading.py.
_OVERHEAD_BYTES = 250_000


def session_options(threads: int | None = None, spin: bool = True) -> ort.SessionOptions:
    """Return the options of every session; `threads` None: as many as this process has cores.

    spin: whether threads that wait for each other within a run stay awake; only where every thread of every run has a core. To sleep and
    to be woken after each operator cost a lone run of a ViT-S a sixth of its time, of a ResNet-50 a thirtieth
    (docs/measurements/server.md).
    Many sessions share the cores here, so that no thread spins once its run is over (a spinning trunk steals the branches' cores),
    and idle memory must go back (a memory arena per session keeps 20-40 % more of it).
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")  # with the end of the session's last run
    options.log_severity_level = 4  # only fatal ones: the rest arrives as exceptions, and is said once
    return options


def segment_threads(segment: Segment, threads: int | None) -> int | None:
    """Return how many threads the session of `segment` gets where large ones get `threads`.

    A session has a thread pool of its own, so that a thousand heads would have a thousand idle threads and gain nothing.
    """
    return 1 if is_small(segment) else threads


def memory_of(file: SegmentFile) -> int:
    """Return the bytes that an open session of `file` takes: its weights, and what comes with them. Raises RepositoryError."""
    # With external data, where there is any.
    return _OVERHEAD_BYTES + (file.bytes if isinstance(file, BundleFile) else file.kept.bytes)


def open_session(
    model: Path | bytes, options: ort.SessionOptions, providers: Sequence[str], first_options: Mapping[str, str] | None = None
) -> ort.InferenceSession:
    """Return a session of an ONNX file or its bytes. first_options: of the first provider.

    Raises what ONNX Runtime raises, which has no common base.
    """
    source = model if isinstance(model, bytes) else str(model)
    with_options = [(providers[0], dict(first_options or {})), *providers[1:]]
    return ort.InferenceSession(source, options, providers=with_options, enable_fallback=0)


def run_session(session: ort.InferenceSession, inputs: Sequence[Array]) -> Sequence[Array]:
    """Run a segment's session on its inputs in order, arrays of shape (n, ...). Callable from several threads at once."""
    named = {segment_tensor(SEGMENT_INPUT, index): np.ascontiguousarray(rows) for index, rows in enumerate(inputs)}
    return cast(Sequence[Array], session.run(None, named))


def run_on_device(session: ort.InferenceSession, inputs: Sequence[Array], device: Device) -> Sequence[Array]:
    """Do as `run_session`, but leave the outputs on `device`, where the session computes, as DeviceRows. Inputs may be such, too."""
    binding = session.io_binding()
    for index, rows in enumerate(inputs):
        name = segment_tensor(SEGMENT_INPUT, index)
        if not (is_on_device(rows) and rows.bind(binding, name, device)):
            binding.bind_cpu_input(name, np.ascontiguousarray(rows))
    for output in session.get_outputs():
        binding.bind_output(output.name, device.kind, device.number)
    binding.synchronize_inputs()  # binding may only begin a copy; a run, by default, ends when its outputs are there
    session.run_with_iobinding(binding)
    return [whole(value, session) for value in binding.get_outputs()]


def warm_up(segment: Segment, session: ort.InferenceSession, device: Device | None = None, rows: int = 1) -> Sequence[Array]:
    """Return what `session` makes of some rows of zeros; device: as of `run_on_device`, None: the host."""
    zeros = zeros_for(segment, rows)
    return run_session(session, zeros) if device is None else run_on_device(session, zeros, device)


def cannot_be_loaded(segment: Segment, sizes: Mapping[str, int]) -> RepositoryError:
    """Return the error of a model that ONNX Runtime refuses; its own words may hold paths, which clients must not see.

    sizes: in bytes, of its files by their names.
    """
    if segment.plain is not None:
        return RepositoryError(
            f"ONNX Runtime does not open {segment.plain.file} as it is now; load the model again when it is whole."
        )
    return RepositoryError(
        f"Segment {segment.name!r} cannot be loaded: {what_is_damaged(segment, sizes)}; export the repository again."
    )
