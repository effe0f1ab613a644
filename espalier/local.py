"""A repository that answers in this process: the server's core, without a port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from contract.dtypes import Array
from contract.repository.model import Repository
from contract.repository.read import RepositoryReader
from contract.repository.write import recover
from serving.answers.prediction import Prediction
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.plain import read_plain
from serving.images.tasks import AnyImage
from serving.lifecycle import served_part
from serving.process.loop_thread import LoopThread
from serving.requests import InferRequest, RequestedOutput
from serving.router import Router

log = logging.getLogger(__name__)
_CLOSE_S = 30.0
_T = TypeVar("_T")


class LocalRepository:
    """What `espalier.open` returns: the tasks of a repository, which wait for requests until `close`, or the end of a `with` block.

    Several threads may ask at a time; rows that wait are batched, as in a server. pad_lengths: as of `serving.options.ServerOptions`.
    Raises RepositoryError for a folder that cannot be served, and EngineError where its segments cannot be opened.
    """

    def __init__(self, path: str | Path, options: EngineOptions | None = None, pad_lengths: Sequence[int] = ()) -> None:
        options = options or EngineOptions()
        path = Path(path)
        recover(path)
        reader = RepositoryReader(path, partial(read_plain, memory_limit_bytes=options.sessions.memory_limit_bytes))
        repository = served_part(reader.read())
        self._router = Router(repository, EmbeddedEngine(repository, options=options), reader=reader, pad_lengths=pad_lengths)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = LoopThread(self._start, self._router.aclose, "espalier-local")
        self._thread.begin()
        self._thread.wait_until_ready()

    @property
    def repository(self) -> Repository:
        """Return the segments and tasks that are answered."""
        return self._router.repository

    def predict(self, images: Sequence[AnyImage], tasks: Sequence[str] | None = None, top_k: int | None = None) -> Prediction:
        """Return what each of `tasks` answers about each image; None: all that take images.

        images: PIL images, or uint8 RGB arrays of shape (height, width, 3), each of any size. Raises NoTask, UnknownTask,
        NotAnImage, InvalidRequest, QueueFull, TaskFailed.
        """
        return self._wait_for(self._router.predict(images, tasks, top_k))

    def predict_texts(
        self, texts: Sequence[str], tasks: Sequence[str] | None = None, top_k: int | None = None, *, truncate: bool = False
    ) -> Prediction:
        """Return what each of `tasks` answers about each text; None: all that take text.

        truncate: whether of a text that is too long the beginning is answered; its place is then in `cut` of the answer. Otherwise it is
        refused. Raises NoTask, UnknownTask, InvalidRequest, ExtraNeeded, QueueFull, TaskFailed.
        """
        return self._wait_for(self._router.predict_texts(texts, tasks, top_k, truncate=truncate))

    def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> Mapping[str, Array]:
        """Return the outputs of a model (a task, or "all_tasks") for tensors, by name. outputs: no name means all of them.

        inputs: by name, of shape (rows, ...). Raises UnknownModel, InvalidRequest, QueueFull, TaskFailed, EngineError.
        """
        request = InferRequest(model, inputs, tuple(RequestedOutput(name) for name in outputs))
        return self._wait_for(self._router.infer(request)).outputs

    def close(self) -> None:
        """Release everything. Requests after it raise RuntimeError; doing it again does nothing."""
        loop, self._loop = self._loop, None
        if loop is not None and not self._thread.finish(_CLOSE_S):
            log.error("The engine does not come back, and was left behind: its thread ends with its work.")

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._router.start()
        except BaseException:
            await self._router.aclose()
            raise

    def _wait_for(self, answer: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            answer.close()
            raise RuntimeError("The repository has been closed; open it again.")
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
