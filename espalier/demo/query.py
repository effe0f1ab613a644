"""Asks a running server the way a client would, and holds the answers against the separate networks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from PIL import Image

from contract.dtypes import Array
from contract.repository import ALL_TASKS, Repository
from contract.system import have_cores
from serving.answers.classes import scores
from serving.client import predict
from serving.engines.onnxruntime.session import PROVIDERS, open_session, session_options


@dataclass(frozen=True)
class Query:
    """What was asked, how far the answers are from the separate networks', and how often each segment ran for it.

    difference: the largest difference of any output, over the largest magnitude of that output.
    """

    client: str
    tasks: tuple[str, ...]
    difference: float
    runs: Mapping[str, int]


class Interrogator:
    """Queries one server. `networks` are the separate networks (ONNX files by task) that the answers must equal."""

    def __init__(self, repository: Repository, networks: Mapping[str, Path], http_url: str, grpc_url: str) -> None:
        self._repository = repository
        self._http_url = http_url
        self._http = http_client.InferenceServerClient(http_url)
        self._grpc = grpc_client.InferenceServerClient(grpc_url)
        one_thread = session_options(1, spin=have_cores(1))
        self._networks = {name: open_session(path, one_thread, PROVIDERS) for name, path in networks.items()}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._grpc.close()

    def over_http(self, model: str, tasks: Sequence[str], rows: Array) -> Query:
        """Ask `model` (a task or all_tasks) for `tasks` through tritonclient.http, uint8 rows as binary."""
        return self._infer("HTTP", self._http, http_client, model, tasks, rows)

    def over_grpc(self, model: str, tasks: Sequence[str], rows: Array) -> Query:
        """Ask `model` for `tasks` through tritonclient.grpc."""
        return self._infer("gRPC", self._grpc, grpc_client, model, tasks, rows)

    def _infer(self, protocol: str, client: Any, words: Any, model: str, tasks: Sequence[str], rows: Array) -> Query:
        """Ask through `client`; `words` is its module: both modules have the same names for the parts of a request."""
        image = words.InferInput("image", rows.shape, "UINT8")
        image.set_data_from_numpy(rows)
        before = self._runs()
        result = client.infer(model, [image], outputs=[words.InferRequestedOutput(task) for task in tasks])
        return self._compare(f"{protocol}  {model}", tasks, {task: result.as_numpy(task) for task in tasks}, rows, before)

    def with_png(self, tasks: Sequence[str], row: Array) -> Query:
        """Ask POST /predict for `tasks` with the PNG bytes of one image. Compares the scores."""
        labels = {task: len(self._repository.tasks[task].labels) for task in tasks}
        before = self._runs()
        answer = predict(f"http://{self._http_url}", png_bytes(row), tasks=list(tasks), top_k=max(labels.values()))
        scores = {task: self._scores(task, answer["tasks"][task]["labels"]) for task in tasks}
        return self._compare("POST /predict (PNG)", tasks, scores, self._prepared(tasks[0], row), before, probabilities=True)

    def _prepared(self, task: str, row: Array) -> Array:
        """Return the rows that the server makes of the picture `row`: it may resize and crop."""
        how = self._repository.tasks[task].preprocessing
        return row[None] if how is None else how(Image.fromarray(row))[None]

    def _scores(self, task: str, entries: Sequence[Mapping[str, object]]) -> Array:
        by_label = {entry["label"]: entry["score"] for entry in entries}
        return np.array([[by_label[label] for label in self._repository.tasks[task].labels]], dtype=np.float32)

    def _compare(
        self,
        client: str,
        tasks: Sequence[str],
        answers: Mapping[str, Array],
        rows: Array,
        before: Mapping[str, int],
        probabilities: bool = False,
    ) -> Query:
        runs = {name: count - before[name] for name, count in self._runs().items()}
        difference = 0.0
        for task in tasks:
            (expected,) = self._networks[task].run(None, {self._networks[task].get_inputs()[0].name: rows})
            expected = scores(expected, self._repository.tasks[task].scores) if probabilities else expected
            difference = max(difference, _relative_difference(answers[task], expected))
        return Query(client, tuple(tasks), difference, {name: count for name, count in runs.items() if count})

    def _runs(self) -> dict[str, int]:
        """Return how often each segment has run, as the server's v2 statistics say."""
        statistics = self._http.get_inference_statistics()["model_stats"]
        return {entry["name"]: entry["execution_count"] for entry in statistics if entry["name"] in self._repository.segments}


def ask_all_ways(interrogator: Interrogator, tasks: Sequence[str], rows: Array) -> list[Query]:
    """Ask for one task, some and all, over each protocol. `rows`: uint8 images of shape (n, height, width, 3)."""
    some = list(tasks[1:3])
    return [
        interrogator.over_http(tasks[0], tasks[:1], rows[:1]),
        interrogator.over_http(ALL_TASKS, some, rows[:1]),
        interrogator.over_http(ALL_TASKS, tasks, rows),
        interrogator.over_grpc(tasks[-1], tasks[-1:], rows[:1]),
        interrogator.over_grpc(ALL_TASKS, some, rows[:1]),
        interrogator.over_grpc(ALL_TASKS, tasks, rows),
        interrogator.with_png(tasks[:1], rows[0]),
        interrogator.with_png(some, rows[0]),
        interrogator.with_png(tasks, rows[0]),
    ]


def png_bytes(image: Array) -> bytes:
    """Return `image` (uint8, (height, width, 3)) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _relative_difference(found: Array, expected: Array) -> float:
    """Return the largest difference over the largest magnitude."""
    wanted = expected.astype(np.float64)
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())
