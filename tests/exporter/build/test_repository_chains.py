"""A repository read back gives the chains that it was made from: what comes later is compared with these."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.repository import read_repository
from exporter.build.repository_chains import RepositoryChains, read_repository_chains
from exporter.build.weight_store import WeightStore
from exporter.errors import DamagedSegment
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.chain import Chain
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import Net
from tests.exporter.test_export import BACKBONE, FAMILY, export
from tests.exporter.wired import FROZEN, plain, siamese, with_embedding, with_joint_end, with_metadata, with_side_head

pytestmark = pytest.mark.slow


def read_back(repo: Path, scratch: Path) -> RepositoryChains:
    scratch.mkdir(exist_ok=True)
    return read_repository_chains(read_repository(repo), WeightStore(scratch))


def values(chain: Chain) -> frozenset[str]:
    return frozenset[str]().union(*chain.values)


def test_what_is_computed_is_what_the_whole_networks_compute(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", FAMILY)
    repository_chains = read_back(tmp_path / "repo", tmp_path / "scratch")
    assert {name: (values(chain), chain.outputs, chain.preprocessing) for name, chain in repository_chains.chains.items()} == {
        name: (values(chain), chain.outputs, chain.preprocessing) for name, chain in report.chains.items()
    }


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)), st.sampled_from(["exact", "stages"]))
def test_whatever_was_tuned_the_segments_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, one: set[int], two: set[int], rule: str
) -> None:
    tmp_path = tmp_path_factory.mktemp("family")
    family = {
        name: Net(blocks=[seed * 10 if index in tuned else seed for index, seed in enumerate((1, 2, 3, 4))], head=head)
        for name, tuned, head in (("one", one, 1), ("two", two, 2))
    }
    report = export(tmp_path / "repo", family, BACKBONE, cuts=CutOptions(rule))  # type: ignore[arg-type]
    check_read_back(report, read_back(tmp_path / "repo", tmp_path / "scratch"))


def check_read_back(report: ExportReport, found: RepositoryChains) -> None:
    """Raise unless each task was read as the steps that it was planned as."""
    for name, steps in report.plan.tasks.items():
        assert [(block.segment, block.inputs, block.outputs) for block in found.chains[name].blocks] == [
            (step.segment, step.inputs, step.outputs) for step in steps
        ]
        assert values(found.chains[name]) == values(report.chains[name])
    assert found.digests == {name: segment.digest for name, segment in report.plan.segments.items()}


def test_other_wirings_are_read_back(tmp_path: Path) -> None:
    families = {
        "siamese": {"a": lambda: siamese({"b3": 33, "b4": 44}, 21), "b": lambda: plain(FROZEN, 22)},
        "outputs": {"a": lambda: with_embedding(21), "b": lambda: with_side_head(22), "c": lambda: with_joint_end(23)},
        "inputs": {"a": lambda: with_metadata(21), "b": lambda: with_metadata(22)},
    }
    for family, tasks in families.items():
        loaders = {name: (lambda make=make: TaskModel(make())) for name, make in tasks.items()}
        report = export_repository(Sources(loaders), ExportOptions(tmp_path / family, cuts=CutOptions("exact")))
        check_read_back(report, read_back(tmp_path / family, tmp_path / "scratch"))


def test_a_segment_that_computes_something_else_is_named(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", FAMILY).repository
    name = next(name for name in repository.segments if name.startswith("late-"))
    model = ir.load(repository.model_file(name))
    weight = next(value for value in model.graph.initializers.values() if len(value.const_value.shape) == 4)
    weight.const_value = ir.tensor(weight.const_value.numpy() + 1)
    ir.save(model, repository.model_file(name))
    with pytest.raises(DamagedSegment, match=f"Segment '{name}' does not compute what its config.pbtxt says"):
        read_back(tmp_path / "repo", tmp_path / "scratch")
