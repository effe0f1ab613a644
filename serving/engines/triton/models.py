"""What a Triton has to serve for a repository, and how it comes to that: segments first, then the ensembles, then what is over goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from contract.errors import RepositoryError
from contract.repository.config import ALL_TASKS, all_tasks_config, parse_text, task_config
from contract.repository.model import Repository
from contract.repository.read import CONFIG_FILE
from contract.repository.unite import united_inputs
from serving.engines.sessions.kept_files import KeptFiles
from serving.engines.triton.control import TritonServer
from serving.engines.triton.errors import ModelTooLarge, TritonLoadFailed

_MOST_BYTES = (1 << 31) - (1 << 20)  # of a message, with a little for what is around the files
Files = Callable[[str], tuple[str, Mapping[str, bytes]]]


@dataclass(frozen=True)
class TritonModels:
    """The models of a repository.

    parts: those that ensembles are made of, by name. ensembles: their ModelConfigs by name. labels: of tasks that have some.
    """

    parts: frozenset[str]
    ensembles: Mapping[str, Any]
    labels: Mapping[str, tuple[str, ...]]

    def ensemble_files(self, name: str) -> Mapping[str, bytes]:
        """Return what is in an ensemble's folder beside its configuration: a version, and the labels of its outputs."""
        labels = {
            output.label_filename: "\n".join(self.labels[output.name]).encode()
            for output in self.ensembles[name].output
            if output.label_filename
        }
        return {"1/.ensemble": b"", **labels}


def models_of(repository: Repository) -> TritonModels:
    """Return what Triton has to serve for `repository`."""
    tasks = repository.tasks
    ensembles = {name: task_config(task) for name, task in tasks.items()}
    if united_inputs(tasks.values()):  # as in the catalogue
        ensembles[ALL_TASKS] = all_tasks_config(tasks.values())
    steps = {step.model_name for config in ensembles.values() for step in config.ensemble_scheduling.step}
    labels = {name: task.labels for name, task in tasks.items() if task.labels}
    return TritonModels(frozenset(steps | repository.segments.keys()), ensembles, labels)


def wiring(config: Any) -> tuple[frozenset[Any], frozenset[str]]:
    """Return what an ensemble computes: its steps and its outputs, whatever their order."""
    steps = (
        (step.model_name, frozenset(step.input_map.items()), frozenset(step.output_map.items()))
        for step in config.ensemble_scheduling.step
    )
    return frozenset(steps), frozenset(output.name for output in config.output)


async def converge(server: TritonServer, wanted: TritonModels, had: TritonModels | None, files: Files | None = None) -> None:
    """Have `server` serve what is `wanted`: load what it lacks or has otherwise, and unload the ensembles that it `had` and are over.

    had: what it serves as far as we know; None: we do not, and ask. files: model -> configuration (JSON) and files to send, None: it
    finds them in its own repository. Ensembles are always sent: those on disk may be newer, or of more tasks.
    Raises TritonUnreachable, RepositoryError; then it serves a part of both, the replaced models as they were.
    """
    for name in await server.not_ready(wanted.parts if had is None else wanted.parts - had.parts):
        await _load_part(server, name, files)
    for name in await _stale(server, wanted, had):
        await _load_ensemble(server, name, wanted)
    for name in () if had is None else sorted(had.ensembles.keys() - wanted.ensembles.keys()):
        await server.unload(name)


async def _load_part(server: TritonServer, name: str, files: Files | None) -> None:
    config, sent = (None, None) if files is None else files(name)
    await server.load(name, config, sent)


async def _load_ensemble(server: TritonServer, name: str, wanted: TritonModels) -> None:
    config = wanted.ensembles[name]
    try:
        await server.load(name, _json(config), wanted.ensemble_files(name))
    except TritonLoadFailed:
        # Triton (24.10) also looks for the parts in its own repository. When they were sent and are not there, it says that the load has
        # failed, and serves the ensemble.
        if not await server.is_ready(name) or wiring(await server.config(name)) != wiring(config):
            raise


async def _stale(server: TritonServer, wanted: TritonModels, had: TritonModels | None) -> list[str]:
    """Return the ensembles that are not as they should be, `all_tasks` last."""
    if had is None:
        missing = await server.not_ready(wanted.ensembles)
        configs = {name: await server.config(name) for name in wanted.ensembles.keys() - {*missing}}
    else:
        configs = dict(had.ensembles)
    return [name for name, config in wanted.ensembles.items() if name not in configs or wiring(configs[name]) != wiring(config)]


class KeptModels:
    """The models `names` of a repository's folder, to be sent, also when the folder has changed or gone: a `Files`.

    had: those of before, whose models are taken over where they have these names. Raises RepositoryError; a call raises that, too, and
    ModelTooLarge.
    """

    def __init__(self, repository: Repository, names: Iterable[str], had: KeptModels | None = None) -> None:
        known: Mapping[str, _Model] = {} if had is None else had._models
        self._models: Mapping[str, _Model] = {
            name: known[name] if name in known else _Model(repository.path / name) for name in names
        }

    def __call__(self, name: str) -> tuple[str, Mapping[str, bytes]]:
        """Return the configuration of a model (JSON) and its files, by their paths in its folder."""
        return self._models[name].read()


class _Model:
    """The configuration of the model in `folder`, and its files, kept. Raises RepositoryError."""

    def __init__(self, folder: Path) -> None:
        self._name = folder.name
        try:
            config = parse_text((folder / CONFIG_FILE).read_text(encoding="utf-8"), f"{folder.name}/{CONFIG_FILE}")
            self._kept = {path.parent.name: KeptFiles(path) for path in sorted(folder.glob("[0-9]*/model.onnx"))}
        except OSError as error:
            raise self._unreadable(error) from error
        config.name = folder.name
        self._config = _json(config)

    def read(self) -> tuple[str, Mapping[str, bytes]]:
        size = sum(kept.bytes for kept in self._kept.values())
        if size > _MOST_BYTES:
            raise ModelTooLarge(self._name, size)
        try:
            read = {version: kept.use(_read_all) for version, kept in self._kept.items()}
        except OSError as error:
            raise self._unreadable(error) from error
        return self._config, {f"{version}/{name}": data for version, files in read.items() for name, data in files.items()}

    def _unreadable(self, error: OSError) -> RepositoryError:
        return RepositoryError(f"Model {self._name!r} cannot be read ({error.strerror}).")


def _read_all(model: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(model.parent.iterdir()) if path.is_file()}


def _json(config: Any) -> str:
    text: str = json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)
    return text
