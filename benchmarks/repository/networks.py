"""The same tasks as separate networks: each composed from the repository's own segments into one ONNX graph.

Original files are not kept in a repository. A model that espalier did not export is its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.models.merged import write_merged
from benchmarks.models.separate import open_network, share_out
from contract.dtypes import Array
from contract.repository import Repository
from serving.engines.onnxruntime.plain import run_plain

Feed = Mapping[str, Array]
Answers = dict[str, Array]  # by the names of outputs


@dataclass(frozen=True)
class Network:
    """A whole network in a session."""

    repository: Repository
    task: str
    session: ort.InferenceSession

    def run(self, feed: Feed) -> Answers:
        """Return what the network answers to those of `feed` that it takes."""
        task = self.repository.tasks[self.task]
        names = [spec.name for spec in task.outputs]
        if task.plain is not None:
            segment = self.repository.segments[task.steps[0].segment]
            return dict(zip(names, run_plain(segment, self.session, [feed[spec.name] for spec in segment.inputs]), strict=True))
        given = {spec.name: np.ascontiguousarray(feed[spec.name]) for spec in task.inputs}
        return dict(zip(names, self.session.run(names, given), strict=True))


class SeparateNetworks:
    """The tasks `names` of a repository as files in `folder`, and in sessions, which are opened when they are first asked for.

    threads: of all that run at a time. As many threads as a session has are fixed when it is opened, so that there are others for each
    number.
    """

    def __init__(self, repository: Repository, names: Sequence[str], folder: Path, threads: int) -> None:
        self._repository, self._threads = repository, threads
        self.files = {name: _file(repository, name, folder / f"network-{place}.onnx") for place, name in enumerate(names)}
        self._pool = ThreadPoolExecutor(threads)
        self._whole: dict[str, Network] = {}
        self._width, self._narrow = 0, dict[str, Network]()

    def one_after_another(self, names: Sequence[str]) -> Callable[[Feed], Answers]:
        """Return what runs the networks `names`, each with all threads."""
        networks = [self._opened(self._whole, name, self._threads) for name in names]
        return lambda feed: {key: values for network in networks for key, values in network.run(feed).items()}

    def side_by_side(self, names: Sequence[str]) -> Callable[[Feed], Answers] | None:
        """Return what runs the networks `names`, as many at a time as `share_out` says; None where no two would."""
        at_a_time, width = share_out(len(names), self._threads)
        if at_a_time < 2:
            return None
        if width != self._width:
            self._width, self._narrow = width, {}
        networks = [self._opened(self._narrow, name, width) for name in names]
        return lambda feed: {
            key: values
            for answers in self._pool.map(lambda network: network.run(feed), networks)
            for key, values in answers.items()
        }

    def disk_bytes(self, names: Sequence[str]) -> int:
        """Return the bytes of these networks' files."""
        return sum(file.stat().st_size for name in names for file in _with_weights(self.files[name]))

    def forget(self) -> None:
        """Let go of the sessions; they are opened again when they are asked for."""
        self._whole, self._narrow = {}, {}

    def close(self) -> None:
        """Let go of the sessions, and end the threads."""
        self.forget()
        self._pool.shutdown()

    def _opened(self, there: dict[str, Network], name: str, threads: int) -> Network:
        if name not in there:
            there[name] = Network(self._repository, name, open_network(self.files[name], threads))
        return there[name]


def _file(repository: Repository, name: str, file: Path) -> Path:
    task = repository.tasks[name]
    return repository.model_file(task.steps[0].segment) if task.plain else write_merged(repository, [name], file)


def _with_weights(file: Path) -> list[Path]:
    return [path for path in (file, file.with_name(f"{file.name}.data")) if path.exists()]
