"""gRPC channels to Tritons: how they balance, try again, notice that a server is gone, and find it again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from serving.engines.scheduling.admission import QueuePlace
from serving.engines.triton.addresses import Address, target
from serving.errors import DeadlineExceeded

_LEFT_S = 30.0
# Inference has no effects, so that it may be tried again on another server; NOT_FOUND is one that has lost a model.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService", "method": "ModelInfer"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "NOT_FOUND"],
            },
        }
    ],
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),
    # Larger requests would not be tried again; the default is 256 kB, less than two images of 224 x 224.
    ("grpc.per_rpc_retry_buffer_size", 1 << 30),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that has returned is found within a second. The least of them is also how long an attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Hosts that vanish without a word are noticed: what was sent must be acknowledged within the timeout, and while a call lasts the
    # server is pinged now and then. More often would not do: Triton by default ends connections with three pings in five minutes.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),  # these are servers of one's own, not of the web
)


def open_channel(addresses: Collection[Address], retries: bool = True) -> Any:
    """Return a grpc.aio channel to all of `addresses`, in turn; retries: whether it tries inference again."""
    return grpc.aio.insecure_channel(target(addresses), options=[*_OPTIONS, ("grpc.enable_retries", int(retries))])


class Users:
    """Who uses something that is to be closed or changed when nobody does any more. Used from one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Be one during the `with` block."""
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def gone(self) -> None:
        """Return when there are none."""
        await self._none.wait()


class TritonChannel:
    """A way to a set of Tritons, for inference. It never changes: another set is another channel, and this one ends with its last user.

    users: whoever needs it open. stub: the other calls of the protocol.
    """

    def __init__(self, addresses: Collection[Address], retries: bool = True) -> None:
        self._channel = open_channel(addresses, retries)
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._ask: Callable[..., Any] = self.stub.ModelInfer
        self.users = Users()

    async def infer(self, request: Any, timeout: float | None = None, place: QueuePlace | None = None) -> Any:
        """Return the ModelInferResponse. Raises AioRpcError, and DeadlineExceeded after `timeout` seconds.

        place: of the request in the queue, if it has one: held until Triton has done its work, also where nobody waits for it any more.

        When time is up, or who asks is cancelled, Triton goes on and its answer is dropped. It must not be told: cancelled requests end
        a Triton 24.10 now and then with a segmentation fault (its issues 7368, 8034; we saw it with ensembles of several branches).
        """
        asked = asyncio.create_task(self._infer(request))
        if place is not None:
            place.hold()
            asked.add_done_callback(lambda _: place.let_go())
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            if not asked.done():
                self._leave(asked)

    async def aclose(self) -> None:
        """Wait for its users, and close it."""
        await self.users.gone()
        await self._channel.close()

    async def _infer(self, request: Any) -> Any:
        with self.users.one():
            return await self._ask(request)

    def _leave(self, asked: asyncio.Task[Any]) -> None:
        # A Triton that never answers is not waited for for ever.
        end = asyncio.get_running_loop().call_later(_LEFT_S, asked.cancel)

        def forget(done: asyncio.Task[Any]) -> None:
            end.cancel()
            if not done.cancelled():
                done.exception()  # taken note of: nobody is there to hear of it

        asked.add_done_callback(forget)
