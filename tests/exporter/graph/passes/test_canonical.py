"""Equal networks have equal digests, whoever wrote them down, and however."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys

import pytest

from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graph.passes.graphs import parse

MATRIX = "float[4, 4] {name} = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}"
TOKEN = "float[1, 1, 4] token = {1, 2, 3, 4}"
SHARED = f"{MATRIX.format(name='w')}, {TOKEN}, int64[2] tail = {{1, 4}}"

EXPORT = """
from benchmarks.models.synthetic import random_backbone
from exporter.graph.network import make_chain
from exporter.graph.passes import canonicalise
from exporter.torch.export import BackboneExporter
backbone = random_backbone("vit_tiny_patch16_224", 32, embed_dim=24, depth=1, img_size=32)
print([block.digest for block in make_chain("net", canonicalise(BackboneExporter(backbone).export_backbone().model)).blocks])
"""


def digests(body: str, weights: str) -> list[str]:
    model = parse(body, image="float[batch, 3, 4] image", logits="float[batch, 4, 4] logits", weights=weights)
    return [block.digest for block in make_chain("net", canonicalise(model)).blocks]


BODY = """batch = Shape <start = 0, end = 1> (image) target = Concat <axis = 0> (batch, tail) x = MatMul(image, w) y = MatMul(x, w)
tokens = Expand(token, target) z = Concat <axis = 1> (tokens, y) logits = MatMul(z, w)"""


def test_there_are_blocks_to_compare() -> None:
    assert len(digests(BODY, SHARED)) == 4


def test_duplicates_of_initializers_do_not_matter() -> None:
    twice = BODY.replace("y = MatMul(x, w)", "y = MatMul(x, v)")
    assert digests(twice, f"{SHARED}, {MATRIX.format(name='v')}") == digests(BODY, SHARED)


def test_equal_constants_do_not_matter() -> None:
    constant = BODY.replace(
        "target = Concat <axis = 0> (batch, tail)", "c = Constant <value_ints = [1, 4]> () target = Concat <axis = 0> (batch, c)"
    )
    assert digests(constant, f"{MATRIX.format(name='w')}, {TOKEN}") == digests(BODY, SHARED)


def test_names_and_repeated_nodes_do_not_matter() -> None:
    other = BODY.replace(
        "tokens = Expand(token, target)",
        "again = Shape <start = 0, end = 1> (x) goal = Concat <axis = 0> (again, tail) t = Expand(token, goal)",
    )
    assert digests(other.replace("(tokens, y)", "(t, y)"), SHARED) == digests(BODY, SHARED)


def test_what_the_batch_size_is_computed_from_does_not_matter() -> None:
    other = BODY.replace(
        "batch = Shape <start = 0, end = 1> (image)",
        "all = Shape(image) zero = Constant <value_ints = [0]> () batch = Gather(all, zero)",
    )
    assert digests(other, SHARED) == digests(BODY, SHARED)


@pytest.mark.slow
def test_another_process_gives_the_same_digests() -> None:
    """This process has a seed of its own for the order of sets; the other one has another."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(EXPORT, {})
    environment = {**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    command = [sys.executable, "-c", EXPORT]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.getvalue() == other
    assert other.count(",") >= 4
