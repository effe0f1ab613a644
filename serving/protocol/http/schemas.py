"""Response bodies of the HTTP interface beyond v2, as /docs shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, Field

from contract.preprocessing import Preprocessing
from contract.repository.model import Repository, Task, TensorSpec
from contract.text import TextInput
from serving.answers.prediction import Prediction
from serving.answers.readers import AnyAnswer
from serving.engines.base import SegmentRun

_CACHED = "Segments that need not run, because an earlier request with the same input has left what they give (--feature-cache)."
_ERRORS = "Of tasks that could not be computed, a sentence each; with `partial_results` only."


class ErrorBody(BaseModel):
    """Every error, of whatever kind."""

    error: str = Field(description="One sentence: what is wrong, and what would be right.")


class Run(BaseModel):
    """One run of a segment for this request."""

    segment: str
    rows: int
    milliseconds: float


class Timings(BaseModel):
    """Where the time went, in milliseconds."""

    decode_ms: float = Field(
        description="Making rows of the images (decoding, resizing, cropping) or ids of texts, and waiting for a thread that does."
    )
    queue_ms: float = Field(description="Waiting for the engine before the first run.")
    compute_ms: float = Field(description="The runs of the segments; one that other requests shared counts in full.")
    total_ms: float = Field(description="From the whole body received to the answer ready, waiting for the engine included.")


class PredictBody(BaseModel):
    """The answer to an image: every task that was asked for, and what was computed for it."""

    tasks: dict[str, AnyAnswer]
    segments: list[Run] = Field(description="What ran, in order: the trunk once, however many tasks there are.")
    cached: list[str] = Field(description=_CACHED)
    milliseconds: float = Field(description="From the whole body received to the answer ready.")
    timings: Timings
    errors: dict[str, str] = Field(description=_ERRORS)


class FilePrediction(BaseModel):
    """The answer to one file of a form."""

    filename: str
    tasks: dict[str, AnyAnswer]


class PredictFilesBody(BaseModel):
    """The answer to a form: one entry for each file, in their order, and what was computed for all of them together."""

    images: list[FilePrediction]
    segments: list[Run] = Field(description="What ran, in order; the rows are images.")
    cached: list[str] = Field(description=_CACHED)
    milliseconds: float = Field(description="From the whole body received to the answer ready.")
    timings: Timings
    errors: dict[str, str] = Field(description=_ERRORS)


_TRUNCATED = "Of which tasks' networks the text was too long: they have read its beginning alone. With `truncate` only."


class PredictTextBody(PredictBody):
    """The answer to one text."""

    truncated: list[str] = Field(description=_TRUNCATED)


class TextPrediction(BaseModel):
    """The answer to one text of several."""

    tasks: dict[str, AnyAnswer]
    truncated: list[str] = Field(description=_TRUNCATED)


class PredictTextsBody(BaseModel):
    """The answer to a list of texts: one entry for each, in their order, and what was computed for all of them together."""

    texts: list[TextPrediction]
    segments: list[Run] = Field(description="What ran, in order; the rows are texts.")
    cached: list[str] = Field(description=_CACHED)
    milliseconds: float = Field(description="From the whole body received to the answer ready.")
    timings: Timings
    errors: dict[str, str] = Field(description=_ERRORS)


class TensorBody(BaseModel):
    """A tensor of one row."""

    name: str
    datatype: str
    shape: list[int]


class PreprocessingBody(BaseModel):
    """How an image becomes the network's input."""

    height: int
    width: int
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_fraction: float


class TextInputBody(BaseModel):
    """How a text becomes the network's input."""

    tokenizer: str = Field(description="SHA-256 of its tokenizer.json.")
    ids: str = Field(description="The input that takes ids.")
    mask: str = Field(description="The input that takes 1 for each token that is one; empty: there is none.")
    types: str = Field(description="The input that takes types of tokens; empty: there is none.")
    most_tokens: int | None = Field(description="Of a text, with those that the tokenizer adds; null: any number.")


class TaskBody(BaseModel):
    """A task that can be asked for."""

    name: str
    version: str
    labels: list[str]
    inputs: list[TensorBody]
    outputs: list[TensorBody]
    preprocessing: PreprocessingBody | None = Field(
        description="How an image becomes a row; the client does it where the input is not UINT8."
    )
    text: TextInputBody | None = Field(description="How a text becomes a row; null: the task has no tokenizer.")
    scores: str = Field(
        description="What the network answers. `logits`: a score of /predict is their softmax. `probabilities`, `independent` (each from "
        "0 to 1 by itself) and `value` (a single number): the answer as it is. `log_probabilities`: exp of it. Empty: nobody has looked; "
        "a softmax, or a single number as it is."
    )
    kind: dict[str, Any] = Field(
        description="How people read what it answers: the word of its kind, as answers of /predict have it, and its parameters. `tensor`: "
        "/predict has no answer."
    )
    segments: list[str] = Field(description="What runs for the task, in order.")
    macs: int | None = Field(
        description="Multiply-accumulates per row of the task alone; GFLOPs = 2 x GMACs. Null: not known, of a model that espalier did "
        "not export."
    )


class TasksBody(BaseModel):
    """All tasks of the repository."""

    tasks: list[TaskBody]


def predict_body(prediction: Prediction, total_s: float) -> PredictBody:
    """Return the answer to one image. total_s: from the whole body received to the answer ready."""
    return PredictBody(tasks=_image(prediction, 0), **_computed(prediction, total_s))


def predict_files_body(prediction: Prediction, files: Sequence[str], total_s: float) -> PredictFilesBody:
    """Return the answer to the images of `files`, which are named in their order."""
    images = [FilePrediction(filename=name, tasks=_image(prediction, position)) for position, name in enumerate(files)]
    return PredictFilesBody(images=images, **_computed(prediction, total_s))


def predict_text_body(prediction: Prediction, total_s: float) -> PredictTextBody:
    """Return the answer to one text."""
    return PredictTextBody(tasks=_image(prediction, 0), truncated=_truncated(prediction, 0), **_computed(prediction, total_s))


def predict_texts_body(prediction: Prediction, count: int, total_s: float) -> PredictTextsBody:
    """Return the answer to so many texts."""
    texts = [TextPrediction(tasks=_image(prediction, place), truncated=_truncated(prediction, place)) for place in range(count)]
    return PredictTextsBody(texts=texts, **_computed(prediction, total_s))


def tasks_body(repository: Repository) -> TasksBody:
    """Return what the repository offers."""
    return TasksBody(tasks=[_task(repository, task) for task in repository.tasks.values()])


def _image(prediction: Prediction, position: int) -> dict[str, AnyAnswer]:
    return {name: answers[position] for name, answers in prediction.tasks.items()}


def _truncated(prediction: Prediction, place: int) -> list[str]:
    return [name for name in prediction.tasks if place in prediction.cut.get(name, ())]


def _computed(prediction: Prediction, total_s: float) -> dict[str, Any]:
    compute_s = sum(run.seconds for run in prediction.runs)
    timings = Timings(
        decode_ms=_milliseconds(prediction.prepare_seconds),
        queue_ms=_milliseconds(prediction.queue_seconds),
        compute_ms=_milliseconds(compute_s),
        total_ms=_milliseconds(total_s),
    )
    segments, cached = [_run(run) for run in prediction.runs], list(prediction.cached)
    return {
        "segments": segments,
        "cached": cached,
        "milliseconds": timings.total_ms,
        "timings": timings,
        "errors": prediction.errors,
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _run(run: SegmentRun) -> Run:
    return Run(segment=run.segment, rows=run.rows, milliseconds=_milliseconds(run.seconds))


def _task(repository: Repository, task: Task) -> TaskBody:
    return TaskBody(
        name=task.name,
        version=task.version,
        labels=list(task.labels),
        inputs=[_tensor(spec) for spec in task.inputs],
        outputs=[_tensor(spec) for spec in task.outputs],
        preprocessing=None if task.preprocessing is None else _preprocessing(task.preprocessing),
        text=None if task.text is None else _text(task.text),
        scores=task.scores,
        kind=msgspec.to_builtins(task.answers),
        segments=[step.segment for step in task.steps],
        macs=None if task.plain else sum(repository.segments[step.segment].macs for step in task.steps),
    )


def _tensor(spec: TensorSpec) -> TensorBody:
    return TensorBody(name=spec.name, datatype=spec.dtype, shape=list(spec.shape))


def _text(how: TextInput) -> TextInputBody:
    return TextInputBody(tokenizer=how.sha256, ids=how.ids, mask=how.mask, types=how.types, most_tokens=how.most)


def _preprocessing(how: Preprocessing) -> PreprocessingBody:
    return PreprocessingBody(
        height=how.height,
        width=how.width,
        mean=list(how.mean),
        std=list(how.std),
        interpolation=how.interpolation,
        crop_fraction=how.crop_fraction,
    )
