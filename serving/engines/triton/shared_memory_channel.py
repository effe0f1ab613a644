"""Inputs of requests in shared memory with those Tritons that are on this host; everything else goes over the wire.

What can go wrong (a Triton that has started again and knows no region, one that dies) is asked again over the wire, as if nothing
had been tried. gRPC does not try again here: two Tritons, or one twice, would read a buffer, and who still does could not be known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from contract.dtypes import Array
from serving.engines.base import Call
from serving.engines.scheduling.admission import QueuePlace
from serving.engines.triton.addresses import Address
from serving.engines.triton.channels import TritonChannel
from serving.engines.triton.errors import translated_control
from serving.engines.triton.shared_buffers import (
    PREFIX,
    SMALLEST_BYTES,
    SharedBuffer,
    SharedBuffers,
    is_abandoned,
    remove_abandoned,
    space,
)
from serving.engines.triton.wire import encode, seconds_left
from serving.process.threads import to_thread

log = logging.getLogger(__name__)
_pb: Any = service_pb2
SHARED_FROM_BYTES = 128 << 10  # of a request's inputs: what is less is sent as cheaply
_ASK_S = 5.0
_AGAIN_S = 1.0  # until Triton is asked once more to let go of what it still reads
_LETS_GO_S = 2.0  # for Triton to let go of what it has answered already; it answers first
_SOON_S = 0.02
_Code = grpc.StatusCode
_GONE = (_Code.UNAVAILABLE, _Code.CANCELLED, _Code.DEADLINE_EXCEEDED)
# What may have been for the shared memory's sake, or is for another Triton.
_ASK_ON_THE_WIRE = (_Code.UNAVAILABLE, _Code.NOT_FOUND, _Code.INVALID_ARGUMENT)


class _NotShared(Exception):
    """A Triton and this process have no memory in common; the text says why."""


class SharedMemoryChannel:
    """A way to the Triton at `address`, on this host, for requests whose inputs, `from_bytes` or more, it finds in shared memory."""

    def __init__(self, address: Address, from_bytes: int, buffers: SharedBuffers | None = None) -> None:
        self.address = address
        self._from_bytes = from_bytes
        self._buffers = buffers or SharedBuffers()
        self._channel = TritonChannel([address], retries=False)
        self._work = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closing = False

    async def start(self) -> None:
        """Share a first buffer, and take from Triton those of processes that are gone. Raises _NotShared, TritonUnreachable."""
        try:
            await self._grow(SMALLEST_BYTES)
            await self._unregister_abandoned()
        except grpc.aio.AioRpcError as error:
            if error.code() in _GONE:
                raise translated_control(error, "", f"grpc://{self.address}") from error
            raise _NotShared(error.details() or error.code().name) from error
        except OSError as error:
            raise _NotShared(f"{error.strerror or error}") from error
        self._keeper = asyncio.create_task(self._keep())

    async def aclose(self) -> None:
        """Finish what was asked for, and give up the memory."""
        await self._channel.users.gone()
        if self._keeper is not None:
            self._is_closing = True
            self._work.set()
            await self._keeper
        buffers = self._buffers.known
        await asyncio.gather(*(self._unregister_soon(buffer.name) for buffer in buffers))
        for buffer in buffers:
            buffer.close()
        await self._channel.aclose()

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], call: Call, place: QueuePlace | None = None
    ) -> Any:
        """Return the ModelInferResponse; None where it has to be asked over the wire. Raises AioRpcError, DeadlineExceeded."""
        shared = {name: array for name, array in inputs.items() if array.dtype != np.object_ and array.nbytes}
        byte_size = space(shared.values())
        buffer = self._buffers.take(byte_size) if shared and byte_size >= self._from_bytes else None
        if buffer is None:
            if self._buffers.wanted:
                self._work.set()
            return None
        may_be_read = False
        try:
            with self._channel.users.one():
                left_s = seconds_left(call)
                request = encode(model, inputs, outputs, call, left_s, buffer.write(shared))
                may_be_read = True
                response = await self._channel.infer(request, left_s, place)
            may_be_read = False
        except grpc.aio.AioRpcError as error:
            if error.code() not in _ASK_ON_THE_WIRE:
                raise
            return None
        except OSError:
            return None
        finally:
            self._take_back(buffer, may_be_read)
        return response

    def _take_back(self, buffer: SharedBuffer, may_be_read: bool) -> None:
        """Only an answer shows that Triton has read the inputs: after anything else, it may be about to."""
        if may_be_read:
            self._buffers.retire(buffer)
            self._work.set()
        else:
            self._buffers.put(buffer)

    async def _keep(self) -> None:
        """Make buffers that are wanted, and give up those that are over, one after the other."""
        while not self._is_closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if self._buffers.retired else None):
                    await self._work.wait()
            self._work.clear()
            wanted, self._buffers.wanted = self._buffers.wanted, 0
            if wanted:
                self._buffers.make_room(wanted)
            await asyncio.gather(*map(self._give_up, self._buffers.retired))
            if wanted and self._buffers.has_room(wanted):
                try:
                    await self._grow(wanted)
                except (grpc.aio.AioRpcError, OSError):
                    self._buffers.stop_growing()

    async def _give_up(self, buffer: SharedBuffer) -> None:
        if await self._unregister(buffer.name) is None:
            self._buffers.forget(buffer)

    async def _grow(self, byte_size: int) -> None:
        buffer = await to_thread(SharedBuffer, byte_size)
        try:
            request = _pb.SystemSharedMemoryRegisterRequest(name=buffer.name, key=buffer.key, byte_size=buffer.byte_size)
            await self._channel.stub.SystemSharedMemoryRegister(request, timeout=_ASK_S)
        except BaseException:
            buffer.close()
            raise
        self._buffers.put(buffer)

    async def _unregister(self, name: str) -> grpc.StatusCode | None:
        """Return why Triton keeps the region, None where it has let go; it does not (24.10) while it reads it, and briefly after."""
        try:
            await self._channel.stub.SystemSharedMemoryUnregister(
                _pb.SystemSharedMemoryUnregisterRequest(name=name), timeout=_ASK_S
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
        return None

    async def _unregister_soon(self, name: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LETS_GO_S):
                while await self._unregister(name) not in (None, *_GONE):
                    await asyncio.sleep(_SOON_S)

    async def _unregister_abandoned(self) -> None:
        regions = (
            await self._channel.stub.SystemSharedMemoryStatus(_pb.SystemSharedMemoryStatusRequest(), timeout=_ASK_S)
        ).regions
        for name in regions:
            if name.startswith(PREFIX) and is_abandoned(name):
                await self._unregister(name)


class SharedMemoryChannels:
    """The shared-memory channels to those Tritons that have been admitted, for requests with `from_bytes` of inputs or more.

    Requests go to all Tritons in turn. Used from one event loop.
    """

    def __init__(self, from_bytes: int = SHARED_FROM_BYTES) -> None:
        self._from_bytes = from_bytes
        self._channels: dict[Address, SharedMemoryChannel | None] = {}  # None: it has no memory in common with us
        self._turn = 0
        self._warned: set[Address] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def join(self, address: Address) -> None:
        """Share memory with the Triton at `address`, if it can. Raises TritonUnreachable."""
        await to_thread(remove_abandoned)
        channel = SharedMemoryChannel(address, self._from_bytes)
        try:
            await channel.start()
        except _NotShared as reason:
            await channel.aclose()
            self._put(address, None)
            self._warn(address, reason)
        except BaseException:
            await channel.aclose()
            raise
        else:
            self._put(address, channel)

    def leave(self, address: Address) -> None:
        """Share none with it any longer, as soon as what it was asked is done."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            ending = asyncio.create_task(channel.aclose())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """Wait until the memory of those that have left is given up."""
        while self._ending:
            await asyncio.wait(self._ending)

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], call: Call, place: QueuePlace | None = None
    ) -> Any:
        """Return the ModelInferResponse of the Triton whose turn it is, None where any is to be asked over the wire.

        Raises AioRpcError, DeadlineExceeded.
        """
        channels = list(self._channels.values())
        if not channels:
            return None
        self._turn += 1
        channel = channels[self._turn % len(channels)]
        return None if channel is None else await channel.infer(model, inputs, outputs, call, place)

    def _put(self, address: Address, channel: SharedMemoryChannel | None) -> None:
        self.leave(address)
        self._channels[address] = channel

    def _warn(self, address: Address, reason: _NotShared) -> None:
        if address not in self._warned:
            self._warned.add(address)
            log.warning(
                "Inputs go to the Triton at %s over the wire, since it has no memory in common with us: %s", address, reason
            )
