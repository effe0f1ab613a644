"""Which runtime computes the segments of the embedded engine."""

from __future__ import annotations

from typing import Any

from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.sessions.runtime import Runtime, RuntimeKind, SessionStoreOptions


def make_runtime(options: SessionStoreOptions, instances: int) -> Runtime[Any]:
    """Return the runtime that `options` ask for. instances: runs at a time of one session.

    Raises ProviderUnavailable, PrecisionUnavailable, ExtraNeeded.
    """
    onnx_runtime = OnnxRuntime(options)
    if options.runtime == RuntimeKind.onnxruntime:
        return onnx_runtime
    from serving.engines.openvino.runtime import OpenVinoRuntime

    return OpenVinoRuntime(options, onnx_runtime, instances)
