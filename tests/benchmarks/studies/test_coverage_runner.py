from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.coverage.runner import FamilyLimits, measure_apart, measure_families, read_lines
from benchmarks.studies.coverage.truth import count_equal, run_taps
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.graphs import Net


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "run" / "coverage.jsonl"
    measured: list[str] = []

    def measure(family: str) -> dict[str, Any]:
        measured.append(family)
        return {"family": family, "count": len(measured)}

    first = measure_families(["b", "a", "c"], file, measure)
    assert next(first)["family"] == "b"
    assert next(first)["family"] == "a"
    assert [line["family"] for line in measure_families(["b", "a", "c"], file, measure)] == ["c"]
    again = measure_families(["b", "a", "c"], file, measure, again=lambda line: line["family"] == "a")
    assert [line["family"] for line in again] == ["a"]
    assert measured == ["b", "a", "c", "a"]
    assert [(line["family"], line["count"]) for line in read_lines(file)] == [("a", 4), ("b", 1), ("c", 3)]


@pytest.mark.parametrize("block", [0, 2, 3])
def test_the_made_fork_is_where_the_values_part(block: int) -> None:
    seeds = [1, 2, 3, 4]
    seeds[block] = 50
    rows = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    values = []
    for net in (Net(), Net(blocks=seeds)):
        model = canonicalise(net.model())
        values.append(run_taps(model, [item.end.name for item in make_chain("net", model).blocks], rows))
    assert count_equal(*values) == block + 1  # the stem is before them
    assert count_equal(values[0], values[0]) == len(values[0])


def _exit(*arguments: object) -> None:
    os._exit(3)


def _sleep(*arguments: object) -> None:
    time.sleep(60)


def _answer(sender: Connection, family: str, *arguments: object) -> None:
    sender.send({"family": family})


@pytest.mark.slow
def test_a_bad_family_costs_its_own_line_only() -> None:
    assert measure_apart("good", None, FamilyLimits(seconds=60), _answer) == {"family": "good"}
    assert measure_apart("bad", None, FamilyLimits(seconds=60), _exit)["reason"] == "the process ended with status 3"
    assert measure_apart("slow", None, FamilyLimits(seconds=0.2), _sleep)["reason"] == "took longer than 0 s"
