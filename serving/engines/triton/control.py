"""One Triton, by an address of its own: whether it lives, what it serves, and what it is told to load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.engines.triton.addresses import Address
from serving.engines.triton.channels import open_channel
from serving.engines.triton.errors import TritonUnreachable, translated_control

_pb: Any = service_pb2
_ASK_S = 5.0
_LOAD_S = 600.0  # a large network on a slow disk, in a Triton that loads one model at a time


class TritonServer:
    """The Triton at `address`. Its methods raise TritonUnreachable, ModelControlOff, TritonLoadFailed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._where = f"grpc://{address}"
        self._channel = open_channel([address])
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def is_alive(self) -> bool:
        """Return False when it does not answer. One that takes long has much to do, and is not dead.

        Not whether it is ready: one model that failed to load makes the whole of a Triton not ready.
        """
        try:
            await self._call("ServerLive", _pb.ServerLiveRequest(), _ASK_S)
        except grpc.aio.AioRpcError as error:
            return bool(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
        return True

    async def is_ready(self, model: str) -> bool:
        """Return whether it serves `model`. (Its index of models would leave out those that were sent to it.)"""
        try:
            answer = await self._call("ModelReady", _pb.ModelReadyRequest(name=model), _ASK_S)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise translated_control(error, model, self._where) from error
        return bool(answer.ready)

    async def not_ready(self, models: Iterable[str]) -> list[str]:
        """Return those of `models` that it does not serve, in order of their names."""
        names = sorted(models)
        ready = await asyncio.gather(*map(self.is_ready, names))
        return [name for name, is_ready in zip(names, ready, strict=True) if not is_ready]

    async def config(self, model: str) -> Any:
        """Return the ModelConfig with which it serves `model`."""
        return (await self._ask("ModelConfig", _pb.ModelConfigRequest(name=model), model)).config

    async def load(self, model: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Have it load `model` from its repository, or with another `config` (JSON), or from `files` (by path) in place of those there."""
        request = _pb.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = config
        for path, content in (files or {}).items():
            request.parameters[f"file:{path}"].bytes_param = content
        await self._ask("RepositoryModelLoad", request, model, _LOAD_S)

    async def unload(self, model: str) -> None:
        """Have it serve `model` no longer."""
        await self._ask("RepositoryModelUnload", _pb.RepositoryModelUnloadRequest(model_name=model), model, _LOAD_S)

    async def unload_if_there(self, model: str) -> None:
        """Have it serve `model` no longer, if it does."""
        if await self.is_ready(model):
            await self.unload(model)

    async def statistics(self) -> Any:
        """Return the ModelStatisticsResponse of all models."""
        return await self._ask("ModelStatistics", _pb.ModelStatisticsRequest())

    async def _ask(self, method: str, request: Any, model: str = "", timeout_s: float = _ASK_S) -> Any:
        try:
            return await self._call(method, request, timeout_s)
        except grpc.aio.AioRpcError as error:
            raise translated_control(error, model, self._where) from error

    async def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=timeout_s)
        except grpc.aio.UsageError as error:
            raise TritonUnreachable(self._where, "it is not used any more") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we were cancelled, but the call, by the closing of its channel.
            raise TritonUnreachable(self._where, "it is not used any more") from None
