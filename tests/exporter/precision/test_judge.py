"""By what a task is judged depends on how its answers are read, and what is no number is no answer."""

from __future__ import annotations

import numpy as np
import pytest

from contract.kinds.registry import parse_kind
from exporter.precision.examples import Examples, Rows
from exporter.precision.judge import judge

NOTHING = np.zeros((0, 1), np.uint8)
CODES = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
CODES[:, 0] += 100  # the largest in each row, which tells nothing


def examples(targets: np.ndarray | None = None) -> Examples:
    return Examples(Rows("rows", NOTHING, NOTHING), targets, "" if targets is not None else "nobody knows")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("embedding", "it answers with embeddings"),
        ("values", "it answers with values"),
        ("labels", "it answers with labels"),
        ("tensor", "it answers with tensors"),
    ],
)
def test_vectors_without_a_best_class_are_judged_by_their_error(kind: str, words: str) -> None:
    lost = {"int8": [np.roll(CODES, 1, axis=0)]}  # each has another's, and the largest entry is the same
    verdict = judge("it", parse_kind(kind), examples(), [CODES], lost, 0.1)
    assert (verdict.variant, verdict.measure) == ("fp32", "error")
    assert words in verdict.judged_by
    near = {"int8": [CODES + np.float32(0.01)]}
    assert judge("it", parse_kind(kind), examples(), [CODES], near, 0.1).variant == "int8"


@pytest.mark.parametrize("targets", [None, np.zeros(60, np.int64)])
def test_what_is_no_number_is_lost_even_if_the_first_class_was_right(targets: np.ndarray | None) -> None:
    found = CODES.copy()
    found[:30] = np.nan
    verdict = judge("it", parse_kind("classes"), examples(targets), [CODES], {"int8": [found]}, 0.1)
    assert verdict.variant == "fp32"
    assert verdict.trials[0].drop == 0.5
