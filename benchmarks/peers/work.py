"""What all rivals serve: the same networks as files, one image, and the answers that are right."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import compose

from benchmarks.models.separate import open_network
from contract.dtypes import Array
from contract.repository import Repository, Step


@dataclass(frozen=True)
class WorkSample:
    """image: (1, height, width, 3), uint8. answers: by task, (1, classes), float32, of the whole networks."""

    image: Array
    answers: Mapping[str, Array]


@dataclass(frozen=True)
class Work:
    """What is served and asked. models: a folder with

        separate/<task>.onnx                        whole networks
        shared/trunk.onnx, shared/heads/<task>.onnx     the same, cut where the tasks fork

    samples: the first is what is measured with; several are to show that requests at the same time are told apart.
    """

    repository: Repository
    models: Path
    samples: tuple[WorkSample, ...]

    @property
    def image(self) -> Array:
        """Return the image that is measured with."""
        return self.samples[0].image

    @property
    def tasks(self) -> list[str]:
        """Return the tasks in the order in which they are asked for."""
        return list(self.samples[0].answers)

    @property
    def image_name(self) -> str:
        """Return what the repository calls the image."""
        return next(iter(self.repository.tasks.values())).inputs[0].name


def prepare_work(repository: Repository, networks: Mapping[str, Path], models: Path) -> Work:
    """Lay out `models` for the rivals. networks: whole task models as ONNX files, by task, which `repository` was made from.

    Raises ValueError unless all tasks take one image of fixed size and fork from the trunk at the same place, each in a single line of
    segments; a hand-written trunk would be cut nowhere else.
    """
    (models / "separate").mkdir(parents=True)
    (models / "shared" / "heads").mkdir(parents=True)
    lines = {name: _line(repository.tasks[name].steps) for name in networks}
    trunks = {line[0] for line in lines.values()}
    if len(trunks) != 1:
        raise ValueError(f"The tasks have different trunks ({', '.join(sorted(trunks))}); all must fork at the same place.")
    _link(repository.model_file(trunks.pop()), models / "shared" / "trunk.onnx")
    for name, file in networks.items():
        _link(file, models / "separate" / f"{name}.onnx")
        head = _join([repository.model_file(segment) for segment in lines[name][1:]])
        onnx.save(head, models / "shared" / "heads" / f"{name}.onnx")
    spec = repository.tasks[next(iter(networks))].inputs[0]
    images = [np.random.default_rng(seed).integers(0, 256, (1, *spec.shape), dtype=np.uint8) for seed in range(2)]
    answers = {name: _answers(file, images) for name, file in networks.items()}
    samples = (WorkSample(image, {name: found[place] for name, found in answers.items()}) for place, image in enumerate(images))
    return Work(repository, models, tuple(samples))


def _line(steps: Sequence[Step]) -> list[str]:
    """Return the segments of a task whose steps each take what the one before gives."""
    if len(steps) < 2 or any(after.inputs != before.outputs or len(after.inputs) != 1 for before, after in pairwise(steps)):
        raise ValueError("A task's segments are not a trunk and a single line after it.")
    return [step.segment for step in steps]


def _link(file: Path, place: Path) -> None:
    place.symlink_to(os.path.abspath(file))  # noqa: PTH100 - Path.resolve would follow links


def _join(files: Sequence[Path]) -> onnx.ModelProto:
    """Return the segments one after the other as one network."""
    joined = onnx.load(files[0])
    for place, file in enumerate(files[1:]):
        after = onnx.load(file)
        names = [(joined.graph.output[0].name, f"after{place}/{after.graph.input[0].name}")]
        joined = compose.merge_models(joined, compose.add_prefix(after, f"after{place}/"), names)
    return joined


def _answers(file: Path, images: Sequence[Array]) -> list[Array]:
    session = open_network(file)
    return [session.run(None, {session.get_inputs()[0].name: image})[0] for image in images]
