"""Clients of a running server: questions about images, and telling it what to load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_Image = bytes | str | Path


@dataclass(frozen=True)
class Client:
    """A server at `url`, such as http://127.0.0.1:8000. It holds no connection, and may be used in several threads.

    token: the server's admin token, for `load` and `unload`. timeout_s: of a question; what is loaded may take ten minutes.
    Raises InvalidRequest for a `url` that is none, and in every method ServerUnreachable, and RequestRefused with the server's sentence.
    """

    url: str
    token: str = field(default="", repr=False)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        from serving.client import checked_url

        object.__setattr__(self, "url", checked_url(self.url))

    def predict(self, image: _Image, tasks: Sequence[str] = (), top_k: int = 5) -> dict[str, Any]:
        """Return the `top_k` best classes of an image for each of `tasks`; none: all that take images.

        image: the bytes of a PNG, JPEG, ... file, or its path. The answer is the server's, as `serving.client.predict` describes it.
        Raises NotAnImage for a file that cannot be read.
        """
        from serving.client import predict

        return predict(self.url, _content(image), tasks, top_k, timeout_s=self.timeout_s)

    def load(self, task: str) -> None:
        """Have the server serve `task` as its repository says now; return when it does."""
        from serving.client import control_model

        control_model(self.url, task, "load", self.token)

    def unload(self, task: str) -> None:
        """Have the server serve `task` no longer; return when it does not."""
        from serving.client import control_model

        control_model(self.url, task, "unload", self.token)


@dataclass(frozen=True)
class AsyncClient:
    """A `Client` for event loops: each call waits in a thread of the loop's own pool. Fields and errors are the same."""

    url: str
    token: str = field(default="", repr=False)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self._client.url)

    @cached_property
    def _client(self) -> Client:
        return Client(self.url, self.token, self.timeout_s)

    async def predict(self, image: _Image, tasks: Sequence[str] = (), top_k: int = 5) -> dict[str, Any]:
        """Do as `Client.predict`."""
        return await asyncio.to_thread(self._client.predict, image, tasks, top_k)

    async def load(self, task: str) -> None:
        """Do as `Client.load`."""
        await asyncio.to_thread(self._client.load, task)

    async def unload(self, task: str) -> None:
        """Do as `Client.unload`."""
        await asyncio.to_thread(self._client.unload, task)


def _content(image: _Image) -> bytes:
    if isinstance(image, bytes):
        return image
    from serving.errors import NotAnImage

    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise NotAnImage(f"{image} cannot be read: {error.strerror}.") from error
