"""What images tuned tasks take: their checkpoints say it, and the backbone is opened for nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from contract.preprocessing import Preprocessing
from exporter.errors import ContradictsTask, DifferentImages
from exporter.sources.references import InputOptions, Reference
from exporter.sources.task_model import Tuned
from exporter.torch.networks import overridden
from tuning.network.checkpoint import read_kind, read_spec


def read_tuned(tasks: Mapping[str, Reference]) -> dict[str, Tuned]:
    """Return what the task checkpoints among `tasks` were tuned on, by their headers alone. Raises BadCheckpoint."""
    files = {name: task.file for name, task in tasks.items() if task.file is not None and not task.network}
    specs = {name: read_spec(file) for name, file in files.items() if read_kind(file) == "task"}
    return {name: Tuned(spec.weights_sha256, spec.preprocessing) for name, spec in specs.items()}


def agreed_preprocessing(tuned: Mapping[str, Tuned], options: InputOptions) -> Preprocessing | None:
    """Return what becomes of the images of all `tuned` tasks, None when there are none.

    Raises DifferentImages when they differ, ContradictsTask when `options` say otherwise.
    """
    if not tuned:
        return None
    images = {name: task.preprocessing for name, task in tuned.items()}
    first, agreed = next(iter(images.items()))
    differing = frozenset[str]().union(*(agreed.differing(other) for other in images.values()))
    if differing:
        raise DifferentImages({name: how.words(differing) for name, how in images.items()})
    for option, asked in _asked(options, agreed).items():
        if fields := asked.differing(agreed):
            raise ContradictsTask(option, asked.words(fields), first, agreed.words(fields))
    return agreed


def _asked(options: InputOptions, agreed: Preprocessing) -> dict[str, Preprocessing]:
    """Return what `agreed` would be with each option."""
    return {
        "image_size": overridden(agreed, InputOptions(image_size=options.image_size)),
        "mean": overridden(agreed, InputOptions(mean=options.mean)),
        "std": overridden(agreed, InputOptions(std=options.std)),
    }
