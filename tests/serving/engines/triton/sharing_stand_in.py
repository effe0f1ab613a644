"""The stand-in for Triton with system shared memory, as Triton 24.10 has it.

It computes on the memory itself, has no region that it was not told of, and keeps one as long as a request reads it.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from contract.dtypes import NUMPY_DTYPES
from tests.serving.stand_in import Arrays, StandIn

_pb: Any = service_pb2
_REGION = "shared_memory_region"


class Sharing(StandIn):
    """can_open: whether it is on the same host, as it were.

    regions: name -> memory. read: names of the regions of inputs, in order. changed: those that changed while a request read them.
    sent: of inputs that were in messages, how many. refuses_to_let_go: how often, since a request is over only after its answer.
    """

    can_open = True
    refuses_to_let_go = 0

    def start(self) -> Sharing:
        self.regions: dict[str, np.ndarray] = {}
        self.read: list[str] = []
        self.changed: list[str] = []
        self.sent = 0
        self._readers: Counter[str] = Counter()
        super().start()
        return self

    def __enter__(self) -> Sharing:
        return self.start()

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not self.can_open:
            context.abort(grpc.StatusCode.INTERNAL, f"Unable to open shared memory region: '{request.key}'")
        file = os.open(f"/dev/shm{request.key}", os.O_RDWR)
        self.regions[request.name] = np.frombuffer(mmap.mmap(file, request.byte_size), np.uint8)
        os.close(file)
        return _pb.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.refuses_to_let_go -= 1
        if self._readers[request.name] or self.refuses_to_let_go >= 0:
            text = f"Cannot unregister shared memory region '{request.name}', it is currently in use."
            context.abort(grpc.StatusCode.INTERNAL, text)
        self.regions.pop(request.name, None)
        return _pb.SystemSharedMemoryUnregisterResponse()

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = _pb.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            response.regions[name].name = name
        return response

    def tensors(self, request: Any, context: Any) -> Arrays:
        found, raw = {}, iter(request.raw_input_contents)
        for tensor in request.inputs:
            parameters = tensor.parameters
            if _REGION not in parameters:
                self.sent += 1
                data = np.frombuffer(next(raw), np.uint8)
            else:
                name = parameters[_REGION].string_param
                if name not in self.regions:
                    context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
                self.read.append(name)
                start = parameters["shared_memory_offset"].int64_param
                data = self.regions[name][start : start + parameters["shared_memory_byte_size"].int64_param]
            found[tensor.name] = data.view(NUMPY_DTYPES[tensor.datatype]).reshape(tensor.shape)
        return found

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        given = [tensor.parameters for tensor in request.inputs if _REGION in tensor.parameters]
        names = {parameters[_REGION].string_param for parameters in given} & {*self.regions}
        before = {name: bytes(self.regions[name]) for name in names}
        self._readers.update(names)
        try:
            return super().ModelInfer(request, context)
        finally:
            self._readers.subtract(names)
            self.changed += [name for name, data in before.items() if bytes(self.regions[name]) != data]
