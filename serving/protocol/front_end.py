"""What a way into the server is, whatever its protocol, and what all of them answer for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from serving.observe.prometheus import Metrics
from serving.page.page import Page
from serving.process.work_pool import WorkPool
from serving.protocol.control import Admin
from serving.protocol.memory_budget import MemoryBudget
from serving.protocol.message_limits import USUAL, MessageLimits
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router

MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Service:
    """What is served, and what the front ends of one server share.

    metrics: what is told of it. admin: who may load and unload models. budget: counts the bytes of requests and answers. memory: system
    shared memory; None: not offered. pool: where long messages are decoded and encoded. max_body_bytes: the largest request, counted after
    decompression. limits: of what a request holds. page: for people, over HTTP; None: there is none.
    """

    router: Router
    metrics: Metrics = field(default_factory=Metrics)
    admin: Admin = field(default_factory=Admin)
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    memory: SharedMemory | None = None
    pool: WorkPool = field(default_factory=WorkPool)
    max_body_bytes: int = MAX_BODY_BYTES
    limits: MessageLimits = USUAL
    page: Page | None = None


class FrontEnd(Protocol):
    """A port on which one protocol is spoken."""

    @property
    def port(self) -> int:
        """Return the one that was asked for (0: any free one), and from `start` on the one that was taken."""

    async def start(self, service: Service) -> None:
        """Take the port and answer for `service` on it. Raises AddressInUse, InvalidAddress; then nothing stays behind."""

    async def aclose(self, grace_s: float) -> None:
        """Take no more requests, finish those in flight within `grace_s` seconds, and let go of the port. Nothing to do before `start`."""
