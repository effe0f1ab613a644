"""A repository that answers in this process: the server's core, without a port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from contract.dtypes import Array
from contract.repository.model import Repository
from contract.repository.read import RepositoryReader
from contract.repository.write import recover
from espalier.answers_file import FolderRow
from espalier.folder_run import BATCH, FolderRun, batched, united
from espalier.pictures import NamedImage, OneImage, named_images, prepare_named
from serving.answers.answer import About, Show, Vectors
from serving.answers.prediction import Prediction
from serving.answers.shown import parse_shown
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.plain import read_plain
from serving.features.cached_engine import with_feature_cache
from serving.lifecycle import served_part
from serving.process.loop_thread import LoopThread
from serving.requests import InferRequest, RequestedOutput, RequestOptions
from serving.router import Router

log = logging.getLogger(__name__)
_CLOSE_S = 30.0
_T = TypeVar("_T")


class LocalRepository:
    """What `espalier.open` returns: the tasks of a repository, which wait for requests until `close`, or the end of a `with` block.

    Several threads may ask at a time; rows that wait are batched, as in a server. pad_lengths, feature_cache_bytes: as of
    `serving.options.ServerOptions`.
    Raises RepositoryError for a folder that cannot be served, and EngineError where its segments cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        options: EngineOptions | None = None,
        pad_lengths: Sequence[int] = (),
        feature_cache_bytes: int | None = None,
    ) -> None:
        options = options or EngineOptions()
        path = Path(path)
        recover(path)
        reader = RepositoryReader(path, partial(read_plain, memory_limit_bytes=options.sessions.memory_limit_bytes))
        repository = served_part(reader.read())
        engine: Engine = EmbeddedEngine(repository, options=options)
        if feature_cache_bytes:
            engine = with_feature_cache(engine, repository, feature_cache_bytes)
        self._router = Router(repository, engine, reader=reader, pad_lengths=pad_lengths)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = LoopThread(self._start, self._router.aclose, "espalier-local")
        self._thread.begin()
        self._thread.wait_until_ready()

    @property
    def repository(self) -> Repository:
        """Return the segments and tasks that are answered."""
        return self._router.repository

    def predict(
        self,
        images: OneImage | Iterable[OneImage],
        tasks: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> Prediction:
        """Return what each of `tasks` answers about each image, in their order; None: all that take images.

        images: a path, the bytes of a file, a PIL image, a uint8 RGB array of shape (height, width, 3), each of any size; a folder, with
        those in it; or any number of these. `tasks` of the answer has a tuple for each task, with one answer for each image, also where
        there is one image; `rows` has them by image, and `names` what each is called. They run in batches, and one picture is in memory
        at a time as it was sent. top_k: classes, or boxes. vectors: how embeddings are written. show: what is put beside answers,
        "logits", "scores", "preprocessing". Raises NoTask, UnknownTask, NotAnImage
        naming the file, InvalidRequest, QueueFull, TaskFailed.
        """
        about = About(top_k=top_k, vectors=vectors, show=parse_shown(show))
        batches = (self._ask(batch, tasks, about) for batch in batched(named_images(images), BATCH))
        return united([*batches])

    def predict_folder(
        self,
        folder: str | Path,
        tasks: Sequence[str] | None = None,
        out: str | Path | None = None,
        *,
        top_k: int | None = None,
        vectors: Vectors = "list",
        show: Show = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[FolderRow]:
        """Yield what `tasks` answer about each file in `folder` and the folders in it, but hidden ones; None: all that take images.

        A file that is no image has a row that says why. out: a .csv or .jsonl that gets them, too, a batch at a time; files that it has
        already are not asked about again, and not yielded. progress: is called with how many files are done, and how many there are.
        Raises what `predict` does, but for files that are none; InvalidRequest for an `out` that holds anything else.
        """
        run = FolderRun(self._ask, Path(folder), About(top_k=top_k, vectors=vectors, show=parse_shown(show)))
        return run.rows(run.checked_tasks(self.repository.tasks, tasks), out, progress)

    def predict_texts(
        self,
        texts: Sequence[str],
        tasks: Sequence[str] | None = None,
        top_k: int | None = None,
        *,
        truncate: bool = False,
        vectors: Vectors = "list",
        show: Show = (),
    ) -> Prediction:
        """Return what each of `tasks` answers about each text; None: all that take text.

        truncate: whether of a text that is too long the beginning is answered; its place is then in `cut` of the answer. Otherwise it is
        refused. vectors, show: as of `predict`. Raises NoTask, UnknownTask, InvalidRequest, ExtraNeeded, QueueFull, TaskFailed.
        """
        return self._wait_for(
            self._router.predict_texts(texts, tasks, top_k, truncate=truncate, vectors=vectors, show=parse_shown(show))
        )

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

    def _ask(
        self,
        images: Sequence[NamedImage],
        tasks: Sequence[str] | None,
        about: About,
        skipped: dict[str, str] | None = None,
    ) -> Prediction:
        """Return the answers about a few images. skipped: see `prepare_named`."""
        asked = self._router.predict_prepared(
            prepare_named(images, skipped), tasks, about.top_k, RequestOptions(), about.vectors, about.show
        )
        return replace(self._wait_for(asked), names=tuple(image.name for image in images if image.name not in (skipped or ())))

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
