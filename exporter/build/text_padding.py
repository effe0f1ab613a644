"""Whether a text is answered the same when its row is filled up: a network may take a mask, and not heed it everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from contract.dtypes import Array
from contract.repository import Task
from contract.repository.reference import at_reference
from contract.repository.rows import LIMIT, spread_of
from contract.repository.sample import sample_inputs
from contract.repository.tokenizers import TokenizerFiles
from contract.text import TextInput, TextRows, Tokenizer, as_inputs
from exporter.build.parity import is_rounding
from exporter.build.reference_outputs import SAMPLE_ROWS, TOLERANCE, ReferenceOutputs
from exporter.build.texts import open_tokenizer
from exporter.errors import CannotRun
from exporter.sources.whole import WholeSession

_SAMPLE = (
    "Two",
    "A text of a few words.",
    "A text of many more words than the others, to try the network with, and all that it does.",
)
_COARSE = 500  # times as wide is the limit of a network that computes with fewer bits


def with_padding(
    tasks: Mapping[str, Task], wholes: Mapping[str, ReferenceOutputs], tokenizers: TokenizerFiles
) -> dict[str, Task]:
    """Return `tasks`, those marked whose whole networks answer a padded text otherwise than the text alone, though they take a mask.

    wholes: the networks, by task. tokenizers: at least those of `tasks`. Only what is one answer a text is tried. A network that the texts
    do not run through is left as it is, which `check_texts` refuses.
    """
    opened: dict[str, Tokenizer] = {}
    tried = dict(tasks)
    for name, task in tasks.items():
        text = task.text
        if text is None or not text.mask or text.least == text.most or any(-1 in spec.shape for spec in task.outputs):
            continue
        if text.sha256 not in opened:
            opened[text.sha256] = open_tokenizer(tokenizers, text.sha256)
        tried[name] = replace(task, text=replace(text, padded=_is_hidden(task, text, opened[text.sha256], wholes[name])))
    return tried


def _is_hidden(task: Task, text: TextInput, tokenizer: Tokenizer, whole: ReferenceOutputs) -> bool:
    session = WholeSession(whole.whole)
    try:
        alone, together = (
            _answers(session, task, tokenizer, replace(text, padded=padded), len(whole.outputs)) for padded in (False, True)
        )
    except CannotRun:
        return True
    error = max(map(_error, together, alone, whole.outputs))
    allowed = LIMIT if whole.tolerance <= TOLERANCE else LIMIT * _COARSE
    return error <= allowed or is_rounding(error, _noise(task, whole), whole.tolerance)


def _answers(session: WholeSession, task: Task, tokenizer: Tokenizer, text: TextInput, count: int) -> list[Array]:
    """Return the outputs for the sample, each of shape (texts, ...)."""
    found: list[dict[int, Array]] = [{} for _ in range(count)]
    for rows in tokenizer.encode(_SAMPLE, text, cut=True).rows:
        typed = as_inputs(TextRows(rows.places, rows.inputs), {spec.name: spec.dtype for spec in task.inputs})
        for known, output in zip(found, session.run([typed[spec.name] for spec in task.inputs]), strict=True):
            known.update(zip(rows.places, output, strict=True))
    return [np.stack([known[place] for place in range(len(_SAMPLE))]) for known in found]


def _error(found: Array, expected: Array, usual: Array) -> float:
    """Return the largest difference, in units of how much outputs vary or of a tenth of the largest; infinite where one is no number."""
    known = np.isfinite(expected)
    if not np.array_equal(np.isfinite(found), known):
        return np.inf
    difference = np.abs(found[known].astype(np.float64) - expected[known].astype(np.float64)).max(initial=0.0)
    scale = max(spread_of(usual), spread_of(expected), float(np.abs(expected[known]).max(initial=0.0)) / 10)
    return float(difference / scale) if difference else 0.0


def _noise(task: Task, whole: ReferenceOutputs) -> float | None:
    return whole.noise([*sample_inputs(at_reference(task.inputs, task.sizes), SAMPLE_ROWS).values()])
