"""Shared memory and settings over gRPC: the methods of the inference service beyond inference itself.

Each takes the servicer's shared memory (None: not offered), or the router, and the request, and returns the response.
"""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2

from serving.protocol.describe import LOG_SETTINGS, TRACE_SETTINGS, refuse_changes
from serving.protocol.shared_memory import SharedMemory, offered
from serving.router import Router

_pb: Any = service_pb2


def shared_memory_status(memory: SharedMemory | None, request: Any) -> Any:
    """Return the SystemSharedMemoryStatusResponse: the region that is named, or all. Where it is not offered, there are none."""
    response = _pb.SystemSharedMemoryStatusResponse()
    for region in (memory or SharedMemory(0)).status(request.name):
        status = response.regions[region.name]
        status.name, status.key, status.offset, status.byte_size = region.name, region.key, region.offset, region.byte_size
    return response


def shared_memory_register(memory: SharedMemory | None, request: Any) -> Any:
    """Register a region."""
    offered(memory, "system").register(request.name, request.key, request.offset, request.byte_size)
    return _pb.SystemSharedMemoryRegisterResponse()


def shared_memory_unregister(memory: SharedMemory | None, request: Any) -> Any:
    """Unregister a region, or all. One that is not there is no error, nor is that there can be none."""
    (memory or SharedMemory(0)).unregister(request.name)
    return _pb.SystemSharedMemoryUnregisterResponse()


def cuda_memory_status(request: Any) -> Any:
    """Return the CudaSharedMemoryStatusResponse: there is no region."""
    SharedMemory(0).status(request.name)
    return _pb.CudaSharedMemoryStatusResponse()


def trace_setting(router: Router, request: Any) -> Any:
    """Return the TraceSettingResponse, of all models the same."""
    if request.model_name:
        router.catalog.find(request.model_name)
    refuse_changes("trace", request.settings)
    response = _pb.TraceSettingResponse()
    for name, values in TRACE_SETTINGS.items():
        response.settings[name].value.extend(values)
    return response


def log_settings(request: Any) -> Any:
    """Return the LogSettingsResponse."""
    refuse_changes("log", request.settings)
    response = _pb.LogSettingsResponse()
    for name, value in LOG_SETTINGS.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(response.settings[name], kind, value)
    return response
