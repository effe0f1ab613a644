"""Clients of a running server: questions about images, texts and arrays, and telling it what to load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from contract.dtypes import Array
    from serving.answers.answer import Show, Vectors

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

    def predict(
        self,
        image: _Image | None = None,
        tasks: Sequence[str] = (),
        top_k: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        truncate: bool = False,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> dict[str, Any]:
        """Return what each of `tasks` answers about an image or texts; none: all that take such.

        image: the bytes of a PNG, JPEG, ... file, or its path. text: in its place, one or several; truncate: whether of one that is too
        long the beginning is answered. vectors: how embeddings are written, "list" or "base64". show: what is put beside answers, "logits",
        "scores", "preprocessing" (docs/guides/python.md). The answer is the server's, as `serving.client` describes it.
        Raises NotAnImage for a file that cannot be read, and InvalidRequest unless there is either an image or text.
        """
        from contract.errors import InvalidRequest
        from serving.client import predict, predict_texts

        if text is not None and image is None:
            return predict_texts(
                self.url, text, tasks, top_k, truncate=truncate, vectors=vectors, show=show, timeout_s=self.timeout_s
            )
        if image is None or text is not None:
            raise InvalidRequest("A question is about an image or about text; give one of them.")
        return predict(self.url, _content(image), tasks, top_k, vectors=vectors, show=show, timeout_s=self.timeout_s)

    def predict_many(
        self,
        images: Iterable[_Image],
        tasks: Sequence[str] = (),
        top_k: int | None = None,
        *,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> Iterator[dict[str, Any]]:
        """Yield what each of `tasks` answers about each image, {"filename", "tasks", "errors", "timings"}; some 32 go in a request.

        images: as for `predict`, or folders, with those in them. errors: of tasks that failed. timings: of the request that it went in,
        with how many "images". All else as for `predict`. Raises NotAnImage for a file that cannot be read, and an empty folder.
        """
        from espalier.forms import in_forms, named_files, written_form
        from serving.client import predict_form

        for form in in_forms(named_files(images)):
            sent = written_form(form)
            answer = predict_form(self.url, sent, tasks, top_k, vectors=vectors, show=show, timeout_s=self.timeout_s)
            timings = {**answer["timings"], "images": len(form)}
            for (name, _), found in zip(form, answer["images"], strict=True):
                yield {**found, "filename": name, "errors": answer["errors"], "timings": timings}

    def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Return what a model (a task, "all_tasks") answers to arrays, by name, each of shape (rows, ...), of any size that it takes.

        outputs: no name means all of them. Raises InvalidRequest for an array of a type that the server cannot know.
        """
        from serving.client import infer

        return infer(self.url, model, inputs, outputs, timeout_s=self.timeout_s)

    def check_control(self) -> None:
        """Ask whether the server loads and unloads for this client. Raises LoadsRefused, with its sentence, where it does not."""
        from serving.client import check_control

        check_control(self.url, self.token, timeout_s=self.timeout_s)

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

    async def predict(
        self,
        image: _Image | None = None,
        tasks: Sequence[str] = (),
        top_k: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        truncate: bool = False,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> dict[str, Any]:
        """Do as `Client.predict`."""
        return await asyncio.to_thread(
            self._client.predict, image, tasks, top_k, text=text, truncate=truncate, vectors=vectors, show=show
        )

    async def predict_many(
        self,
        images: Iterable[_Image],
        tasks: Sequence[str] = (),
        top_k: int | None = None,
        *,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> list[dict[str, Any]]:
        """Return what `Client.predict_many` yields."""
        return await asyncio.to_thread(lambda: [*self._client.predict_many(images, tasks, top_k, vectors=vectors, show=show)])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Do nothing: no connection is held."""

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Do as `Client.infer`."""
        return await asyncio.to_thread(self._client.infer, model, inputs, outputs)

    async def check_control(self) -> None:
        """Do as `Client.check_control`."""
        await asyncio.to_thread(self._client.check_control)

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


def check_servers(servers: Sequence[Client]) -> None:
    """Ask each of `servers` once whether it takes loads, before anything is changed.

    One of several that does not answer may do so when it is told. Raises LoadsRefused, and ServerUnreachable where none answers.
    """
    from serving.errors import LoadsRefused, RequestRefused, ServerUnreachable

    silent: list[ServerUnreachable] = []
    for server in servers:
        try:
            server.check_control()
        except LoadsRefused:
            raise
        except RequestRefused:
            continue
        except ServerUnreachable as error:
            silent.append(error)
    if silent and len(silent) == len(servers):
        raise silent[0]
