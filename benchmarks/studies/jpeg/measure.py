"""From the bytes of a JPEG file to the answer: `python -m benchmarks.studies.jpeg REPOSITORY`.

One client, one request after the other, `/predict/TASK` with a photograph of 500 x 375 pixels, against a server in a process of its own;
beside it the same pixels over binary HTTP, and in this process the bare engine on the same segments and the server's own steps from bytes
to a row: decoding, then resizing and cropping. All take turns. Then other decoders and resizers, those whose packages are installed: what
they take of the processor, and by how much their pixels differ from those of the one that is used, which are those of torchvision's and
timm's transforms.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import PIL
from PIL import Image, ImageOps, features

from benchmarks.harness.http_wire import HttpConnection, binary_body, infer_bytes, request_bytes
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.served import ServerProcess, served
from benchmarks.harness.timing import Timing, interleave
from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.jpeg.candidates import USED, decoders, resizers
from contract.plan import make_plan
from contract.preprocessing import Preprocessing
from contract.repository import Repository, Task, read_repository
from serving.engines.embedded import EmbeddedEngine
from serving.images.decode import ImageLimits, decode_image

STAGES = ("bare engine", "decode", "resize and crop", "pixels over HTTP", "JPEG over HTTP")
_LIMITS = ImageLimits()


@dataclass(frozen=True)
class _DecoderCandidate:
    """Another way. difference: the largest of any pixel, of 255; differing: the share of values that are not equal."""

    timing: Timing
    difference: int
    differing: float

    def __str__(self) -> str:
        return f"{self.timing}   largest difference {self.difference:3}, {100 * self.differing:.2f} % differ"


@dataclass(frozen=True)
class _JpegResults:
    """What was measured, by the names of STAGES; decoders and resizers by name. file_bytes: of the JPEG file."""

    task: str
    preprocessing: Preprocessing
    file_bytes: int
    stages: Mapping[str, Timing]
    decoders: Mapping[str, _DecoderCandidate]
    resizers: Mapping[str, _DecoderCandidate]

    @property
    def adds_ms(self) -> float:
        """Return what an answer to a JPEG file takes beyond the bare engine, by the medians."""
        return self.stages["JPEG over HTTP"].median_ms - self.stages["bare engine"].median_ms


def make_photograph(width: int = 500, height: int = 375, quality: int = 90) -> bytes:
    """Return a photograph as a JPEG file of that size. Needs scikit-learn, which brings it."""
    from sklearn.datasets import load_sample_image

    picture = ImageOps.fit(Image.fromarray(load_sample_image("china.jpg")), (width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _measure(repository: Repository, name: str, data: bytes, *, threads: int | None, rounds: int) -> _JpegResults:
    """Return what answering the JPEG file `data` for the task `name` takes, and other ways for parts of it."""
    task = repository.tasks[name]
    if task.preprocessing is None:
        raise ValueError(f"Task {name!r} takes no images.")
    options = ["--threads", str(threads)] if threads else []
    with served(repository.path, "--log-level", "error", *options) as server:
        stages = asyncio.run(_measure_stages(repository, task, task.preprocessing, data, threads, rounds, server))
    image = decode_image(data, _LIMITS).convert("RGB")
    return _JpegResults(
        name,
        task.preprocessing,
        len(data),
        stages,
        asyncio.run(_compare(decoders(data), rounds)),
        asyncio.run(_compare(resizers(image, task.preprocessing), rounds)),
    )


async def _measure_stages(
    repository: Repository, task: Task, how: Preprocessing, data: bytes, threads: int | None, rounds: int, server: ServerProcess
) -> Mapping[str, Timing]:
    plan, spec = make_plan(repository, [task.name]), task.inputs[0]
    image = decode_image(data, _LIMITS)
    rows = how(image)[None]
    engine = EmbeddedEngine(repository, threads=threads)
    await engine.start()
    connection = await HttpConnection.open(server.http_host_port)
    variants: dict[str, Callable[[], Awaitable[object]]] = {
        "bare engine": lambda: engine.infer(plan, {spec.name: rows}),
        "decode": lambda: _call(lambda: decode_image(data, _LIMITS)),
        "resize and crop": lambda: _call(lambda: np.stack([how(image)])),
        "pixels over HTTP": lambda: _ask(connection, infer_bytes(task.name, *binary_body(spec, rows))),
        "JPEG over HTTP": lambda: _ask(connection, request_bytes("POST", f"/predict/{task.name}", body=data)),
    }
    timings = await interleave(variants, rounds)
    await connection.close()
    await engine.aclose()
    return timings


async def _compare(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, _DecoderCandidate]:
    """Time `ways` in turn, by what they take of the processor in one thread, and compare what each gives with what USED gives."""

    def timed(way: Callable[[], object]) -> Callable[[], Awaitable[object]]:
        return lambda: _call(way)

    timings = await interleave({name: timed(way) for name, way in ways.items()}, rounds, clock=time.thread_time)
    expected = np.asarray(ways[USED]()).astype(int)
    differences = {name: np.abs(np.asarray(way()) - expected) for name, way in ways.items()}
    return {
        name: _DecoderCandidate(timings[name], int(difference.max()), float((difference > 0).mean()))
        for name, difference in differences.items()
    }


async def _call(function: Callable[[], object]) -> None:
    function()


async def _ask(connection: HttpConnection, request: bytes) -> None:
    reply = await connection.ask(request)
    if reply.status != 200:
        raise RuntimeError(reply.body.decode("utf-8", "replace"))


def _describe(found: _JpegResults) -> list[str]:
    """Return what a person wants to know, as lines."""
    how = found.preprocessing
    return [
        f"{found.task}: {how.height} x {how.width}, {how.interpolation}, crop {how.crop_fraction}; a file of {found.file_bytes:,} bytes",
        *(f"  {name:34} {found.stages[name]}" for name in STAGES),
        f"  a JPEG file adds {found.adds_ms:.2f} ms to the bare engine",
        *(f"{'decode':7} {name:34} {candidate}" for name, candidate in found.decoders.items()),
        *(f"{'resize':7} {name:34} {candidate}" for name, candidate in found.resizers.items()),
    ]


def _versions() -> dict[str, str | None]:
    """Return the machine and the versions of what matters here."""
    names = {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo"), "onnxruntime": ort.__version__}
    return {"machine": describe_machine(), **names}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", help="default: a tiny network at 224 pixels, bicubic, crop 0.875")
    parser.add_argument("--task", help="default: the first")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    data = make_photograph(given.width, given.height, given.quality)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Preprocessing(224, 224, crop_fraction=0.875)
        repository = (
            read_repository(given.repository) if given.repository else write_tiny_family(Path(folder) / "repository", tiny)
        )
        task = given.task or next(iter(repository.tasks))
        if task not in repository.tasks or repository.tasks[task].preprocessing is None:
            parser.error(f"task {task!r} takes no images; give one that has preprocessing")
        found = _measure(repository, task, data, threads=given.threads, rounds=given.rounds)
    print("\n".join([", ".join(f"{name} {value}" for name, value in _versions().items()), *_describe(found)]))
    if given.json:
        given.json.write_text(json.dumps({**_versions(), **asdict(found)}, indent=1))
