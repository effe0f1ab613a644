"""How far the answers of one precision are from those of another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from PIL import Image

from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

_GRAIN = 8  # grey levels, the deviation of what is added to each pixel


@dataclass(frozen=True)
class Deviation:
    """Of answers (rows of numbers) from those in fp32.

    of_size: root mean square of the difference over that of the answers. of_spread: over that of the answers' distance from their mean
    over all rows, which is the part of them that depends on the image. agreement: share of rows with the same largest number.
    """

    of_size: float
    of_spread: float
    agreement: float
    rows: int


def deviation(expected: Array, found: Array) -> Deviation:
    """Return how far `found` is from `expected`, both float32 (rows, classes). Where the answers do not vary, of_spread is infinite."""
    difference, spread = _rms(np.subtract(expected, found)), _rms(np.subtract(expected, expected.mean(axis=0)))
    agreement = float(np.mean(expected.argmax(axis=1) == found.argmax(axis=1)))
    return Deviation(difference / _rms(expected), difference / spread if spread else float("inf"), agreement, rows=len(expected))


def mean_deviation(tasks: Sequence[Deviation]) -> Deviation:
    """Return the mean over tasks, each compared with its own answers: those of another task lie elsewhere."""
    size, spread, agreement = (mean(getattr(task, name) for task in tasks) for name in ("of_size", "of_spread", "agreement"))
    return Deviation(size, spread, agreement, rows=sum(task.rows for task in tasks))


def answers(
    repository: Repository, names: Sequence[str], rows: Array, threads: int | None = None, engine: Engine | None = None
) -> dict[str, Array]:
    """Return what `engine`, or else ONNX Runtime on the CPU, answers for the tasks `names`, each (rows, classes), one row at a time.

    One at a time, because the ranges of dynamic quantisation are those of all rows of a run. engine: of `repository`, not started.
    """
    by_default = EngineOptions(SessionStoreOptions(threads, provider="cpu"))
    return asyncio.run(_ask(engine or EmbeddedEngine(repository, options=by_default), repository, names, rows))


async def _ask(engine: Engine, repository: Repository, names: Sequence[str], rows: Array) -> dict[str, Array]:
    plan = make_plan(repository, names)
    await engine.start()
    try:
        found = [(await engine.infer(plan, {plan.inputs[0]: row[None]})).outputs for row in rows]
    finally:
        await engine.aclose()
    return {name: _stack(found, name) for name in names}


def _stack(found: Sequence[Mapping[str, Array]], name: str) -> Array:
    return np.concatenate([outputs[name] for outputs in found])


def pictures(count: int, size: int, seed: int) -> Array:
    """Return `count` square images of `size` pixels, uint8 (count, size, size, 3): blurred shapes, coarse to fine, with some grain.

    Images of bare noise are all alike to a network.
    """
    generator = np.random.default_rng(seed)
    return np.stack([_picture(generator, size) for _ in range(count)])


def _picture(generator: np.random.Generator, size: int) -> Array:
    shapes = int(generator.integers(2, 25))
    colours = generator.integers(0, 256, (shapes, shapes, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC), np.float64)
    image *= generator.uniform(0.3, 1)
    return np.clip(image + generator.normal(0, _GRAIN, image.shape), 0, 255).astype(np.uint8)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
