"""The v2 inference protocol over gRPC, on the protobuf modules that tritonclient ships.

A second definition of `inference.*` in the process's descriptor pool would break tritonclient.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import EspalierError
from serving.catalog import Model
from serving.errors import Undecodable, UnknownModel
from serving.process.work_pool import Check, no_check, until
from serving.protocol import describe
from serving.protocol.control import check_load, check_repository_name, check_unload, files_not_taken
from serving.protocol.front_end import Service
from serving.protocol.grpc import extensions as grpc_extensions
from serving.protocol.grpc.codec import (
    decode_request,
    encode_response,
    is_slow_to_decode,
    is_slow_to_encode,
    output_slots,
    read_parameters,
)
from serving.protocol.grpc.contents import Tensors
from serving.protocol.grpc.health import HEALTH_SERVICE, Health
from serving.protocol.grpc.service import (
    SHUTTING_DOWN,
    Encoded,
    Gate,
    Received,
    add_servicer,
    if_too_large,
    takes_tensors,
)
from serving.protocol.memory_budget import Reservation
from serving.protocol.shared_memory import Slot, offered
from serving.protocol.status import RETRY_AFTER_S, RETRY_LATER, sentence, wire_codes
from serving.requests import InferRequest

log = logging.getLogger(__name__)
_pb: Any = service_pb2
_Handler = Callable[[Any, Any, Any], Awaitable[Any]]


def _translated(handler: _Handler) -> _Handler:
    """Turn what `handler` raises into a status with one sentence."""

    @wraps(handler)
    async def translated(self: Any, request: Any, context: Any) -> Any:
        try:
            return await handler(self, request, context)
        except Exception as error:
            failure = self._noted(error)
        if isinstance(failure, RETRY_LATER):
            context.set_trailing_metadata((*context.trailing_metadata(), ("retry-after", str(RETRY_AFTER_S))))
        return await context.abort(wire_codes(failure).grpc, sentence(failure))

    return translated


def _authorization(context: Any) -> str | None:
    return next((value for key, value in context.invocation_metadata() or () if key == "authorization"), None)


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Translates between messages and the router. The methods' names are the protocol's."""

    def __init__(self, service: Service) -> None:
        self._router = service.router
        self._memory = service.memory
        self._admin = service.admin
        self._budget = service.budget
        self._pool = service.pool
        self._limits = service.limits

    @_translated
    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the process answers."""
        return _pb.ServerLiveResponse(live=True)

    @_translated
    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the models are loaded."""
        return _pb.ServerReadyResponse(ready=self._router.ready)

    @_translated
    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether a model is loaded; False also for one that there is not, as on Triton: clients ask until it is there."""
        try:
            model = self._find(request)
        except UnknownModel:
            return _pb.ModelReadyResponse(ready=False)
        return _pb.ModelReadyResponse(ready=self._router.is_model_ready(model))

    @_translated
    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        return describe.server_metadata(shared_memory=self._memory is not None)

    @_translated
    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Inputs and outputs of a model."""
        return describe.model_metadata(self._find(request))

    @_translated
    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The configuration of a model."""
        return _pb.ModelConfigResponse(config=describe.model_config(self._router, self._find(request)))

    @_translated
    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Statistics of one model, or of all when none is named."""
        models = [self._find(request)] if request.name else self._router.catalog.all_versions()
        await self._router.refresh()
        return describe.model_statistics(self._router, models)

    @_translated
    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """All models."""
        check_repository_name(request.repository_name)
        return describe.repository_index(self._router, request.ready)

    @takes_tensors
    @_translated
    async def ModelInfer(self, request: Received, context: Any) -> Any:  # noqa: N802
        """Run a model on tensors."""
        reservation = self._budget.reserve()
        try:
            answer = await self._infer(request, context, reservation)
        except BaseException:
            reservation.release()
            raise
        answer.has_gone = reservation.release
        return answer

    @takes_tensors
    async def ModelStreamInfer(self, requests: AsyncIterator[Received], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answer each request of a stream in order; one that fails is answered by its error_message and the stream goes on.

        The stream ends when the server shuts down, which waits for its streams.
        """
        iterator = aiter(requests)
        ending = asyncio.ensure_future(self._router.until_draining())
        try:
            while (request := await self._next(iterator, ending)) is not None:
                with self._budget.reserve() as reservation:
                    yield await self._stream_answer(request, context, reservation)
        finally:
            ending.cancel()
        if self._router.draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)

    async def _next(self, requests: AsyncIterator[Any], ending: asyncio.Future[None]) -> Any:
        """Return the next request of a stream; None where no more come, or the server shuts down first."""
        coming = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()

    async def _stream_answer(self, request: Received, context: Any, reservation: Reservation) -> Encoded:
        named = _pb.ModelInferResponse()  # tells the client which of its requests failed
        try:
            return await self._infer(request, context, reservation, named)
        except Undecodable as error:
            return await context.abort(wire_codes(error).grpc, sentence(error))  # type: ignore[no-any-return]
        except Exception as error:
            failed = _pb.ModelStreamInferResponse(error_message=sentence(self._noted(error)), infer_response=named)
            return Encoded(failed.SerializeToString())

    async def _infer(self, received: Received, context: Any, reservation: Reservation, named: Any = None) -> Encoded:
        """named: of a stream; a response that gets the request's model and id as soon as they are known."""
        reservation.resize(received.bytes)
        # A call that the client cancels, or whose deadline passes, cancels this coroutine; the deadline also orders what waits.
        left_s = context.time_remaining()
        deadline = None if left_s is None else time.monotonic() + left_s
        request, slots = await self._decode(received, deadline, named)
        response = await self._router.infer(request)
        reservation.add(sum([array.nbytes for array in response.outputs.values()]))
        encode = partial(encode_response, response, slots, in_stream=named is not None)
        answer = await self._pool.run(lambda check: encode()) if is_slow_to_encode(response) else encode()
        reservation.turn_into(len(answer))
        return Encoded(answer)

    async def _decode(self, received: Received, deadline: float | None, named: Any) -> tuple[InferRequest, Mapping[str, Slot]]:
        if not received.is_quick:
            return await self._pool.run(lambda check: self._request(*received.decode_tensors(), deadline, named, check))
        message, tensors = received.decode_tensors()
        if is_slow_to_decode(message, tensors):
            return await self._pool.run(lambda check: self._request(message, tensors, deadline, named, check))
        return self._request(message, tensors, deadline, named)

    def _request(
        self, message: Any, tensors: Tensors, deadline: float | None, named: Any, check: Check = no_check
    ) -> tuple[InferRequest, Mapping[str, Slot]]:
        if named is not None:
            named.model_name, named.id = message.model_name, message.id
        request = decode_request(message, self._memory, deadline, until(deadline, check), tensors, self._limits)
        return request, output_slots(message, self._memory)

    def _noted(self, error: Exception) -> Exception:
        """Return `error`; log it where it is ours to mend, count it where a limit has struck."""
        if wire_codes(error).grpc == grpc.StatusCode.INTERNAL:
            log.error("A gRPC request failed: %s", error, exc_info=error)
        if isinstance(error, EspalierError) and error.limit:
            self._router.observer.refused(error.limit)
        return error

    def _find(self, request: Any) -> Model:
        """Return the model of a request whose fields are `name` and `version`."""
        return self._router.catalog.find(request.name, request.version)

    @_translated
    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The regions that clients have registered."""
        return grpc_extensions.shared_memory_status(self._memory, request)

    @_translated
    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Register a region."""
        return grpc_extensions.shared_memory_register(self._memory, request)

    @_translated
    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unregister a region, or all."""
        return grpc_extensions.shared_memory_unregister(self._memory, request)

    @_translated
    async def TraceSetting(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The trace settings, which are fixed."""
        return grpc_extensions.trace_setting(self._router, request)

    @_translated
    async def LogSettings(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The log settings, which are fixed."""
        return grpc_extensions.log_settings(request)

    @if_too_large(files_not_taken)
    @_translated
    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve a task as it is in the repository on disk now."""
        self._admin.check(_authorization(context))
        check_repository_name(request.repository_name)
        check_load(read_parameters(request.parameters))
        await self._router.load(request.model_name)
        return _pb.RepositoryModelLoadResponse()

    @_translated
    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve a task no longer."""
        self._admin.check(_authorization(context))
        check_repository_name(request.repository_name)
        check_unload(read_parameters(request.parameters))
        await self._router.unload(request.model_name)
        return _pb.RepositoryModelUnloadResponse()

    @_translated
    async def CudaSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The regions in the memory of a GPU, of which there are none."""
        return grpc_extensions.cuda_memory_status(request)

    @_translated
    async def CudaSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse a region."""
        return offered(None, "cuda")

    @_translated
    async def CudaSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Do nothing: it is the first thing that Triton's examples do."""
        return _pb.CudaSharedMemoryUnregisterResponse()


def add_service(server: Any, service: Service) -> None:
    """Let `server` answer for `service`, and say how it is."""
    router = service.router
    gate = Gate(service.pool, router.observer.refused, service.limits)
    add_servicer(server, _pb.DESCRIPTOR.services_by_name["GRPCInferenceService"], _Servicer(service), gate, router.observer)
    add_servicer(server, HEALTH_SERVICE, Health(router), gate, router.observer)
