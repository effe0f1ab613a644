"""Text encoders of six families: whatever their heads have in common is computed once, at any length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.repository import Repository
from exporter.build.parity import ParityChecker
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.network import Network
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import canonical_form
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.encoders import FAMILIES, PLACES, WORDS, task
from tests.exporter.test_dense import planned_macs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "small_sizes")]

Nets = Mapping[str, onnx.ModelProto]
_LENGTHS = (1, 2, 5, 8, PLACES)


def export(out: Path, nets: Nets) -> ExportReport:
    loads = {name: (lambda model=model: TaskModel(ir.from_proto(model))) for name, model in nets.items()}
    return export_repository(Sources(loads), ExportOptions(out, cuts=CutOptions("exact")))


def possible_macs(nets: Nets) -> int:
    """MACs of all that the networks compute for one row at the reference, equal values once."""
    counted: set[str] = set()
    total = 0
    for name, model in nets.items():
        network = Network(name, canonical_form(name, ir.from_proto(model)))
        values = frozenset[str]().union(*network.values)
        total += network.macs_of(values - counted)
        counted |= values
    return total


def check_answers(repository: Repository, nets: Nets, lengths: tuple[int, ...] = _LENGTHS) -> None:
    checker, random = ParityChecker(repository), np.random.default_rng(1)
    for name, model in nets.items():
        session = open_session(ir.from_proto(model))
        names = [value.name for value in session.get_inputs()]
        for length in lengths:
            given = {name: random.integers(0, WORDS if name == "input_ids" else 2, (3, length)) for name in names}
            found = checker.compose(name, [given[spec.name] for spec in repository.tasks[name].inputs])
            np.testing.assert_allclose(found[0], session.run(None, given)[0], atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "distilbert"])
def test_three_heads_share_an_encoder_of_any_length(tmp_path: Path, family: str) -> None:
    late = () if family == "albert" else ("/layers.1/",)  # whose layers are one
    nets = {
        "classes": task(family, ["classes"]),
        "tokens": task(family, ["tokens"], ["/tokens/"], 2),
        "tuned": task(family, ["mean"], ["/mean/", *late], 3),
    }
    repository = export(tmp_path / "repo", nets).repository
    assert planned_macs(repository) == possible_macs(nets)
    (length,) = {name for spec in repository.tasks["tokens"].inputs for name in spec.axes}
    assert length == "sequence_length"
    assert repository.tasks["tokens"].outputs[0].axes == (length, "")
    assert repository.tasks["tokens"].sizes[length].most == (None if family == "relative" else PLACES)
    assert repository.tasks["tokens"].values["input_ids"] == (0, WORDS - 1)
    check_answers(repository, nets)


def test_a_mask_of_booleans_is_shared_beside_the_tokens(tmp_path: Path) -> None:
    nets = {"classes": task("distilbert", ["classes"]), "tokens": task("distilbert", ["tokens"], ["/tokens/", "/layers.1/"], 2)}
    repository = export(tmp_path / "repo", nets).repository
    assert planned_macs(repository) == possible_macs(nets)
    check_answers(repository, nets)


def test_a_mask_that_one_head_takes_as_it_is_and_another_as_booleans(tmp_path: Path) -> None:
    nets = {"classes": task("distilbert", ["classes"]), "tuned": task("distilbert", ["mean"], ["/mean/", "/layers.1/"], 3)}
    check_answers(export(tmp_path / "repo", nets).repository, nets)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(("bert", "prenorm", "relative")),
    st.lists(st.tuples(st.sampled_from(("classes", "mean", "tokens")), st.sets(st.integers(0, 1))), min_size=2, max_size=2),
    st.integers(1, PLACES),
)
def test_whatever_layers_were_tuned_all_that_is_equal_is_computed_once(
    tmp_path_factory: pytest.TempPathFactory, family: str, heads: list[tuple[str, set[int]]], length: int
) -> None:
    nets = {
        f"task{index}": task(family, [head], [f"/{head}/", *(f"/layers.{layer}/" for layer in sorted(tuned))], index)
        for index, (head, tuned) in enumerate(heads)
    }
    repository = export(tmp_path_factory.mktemp("texts") / "repo", nets).repository
    assert planned_macs(repository) == possible_macs(nets)
    check_answers(repository, nets, (length,))
