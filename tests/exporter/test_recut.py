"""Repositories that are cut anew, and networks in which one digest stands at several shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.repository import Repository, read_repository
from exporter.add import AddOptions, AddReport, add_tasks
from exporter.build.parity import ParityChecker
from exporter.build.repository_chains import contents_of, read_repository_chains
from exporter.build.weight_store import WeightStore
from exporter.errors import NoTasks, UnknownCutRule
from exporter.export import ExportOptions, export_repository
from exporter.gc import unused_segments
from exporter.graph.extract import rejoin
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.wired import FROZEN, clipped, plain, siamese, with_embedding, with_joint_end, with_metadata, with_side_head

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

RULES = ["exact", "cheap", "stages"]
WIDTHS = (6, 4, 4, 6, 4)
Models = Mapping[str, ir.Model]


def sources(models: Models, backbone: ir.Model | None = None) -> Sources:
    loaders = {name: (lambda model=model: TaskModel(model.clone())) for name, model in models.items()}
    return Sources(loaders, None if backbone is None else (lambda: TaskModel(backbone.clone())))


def export(out: Path, models: Models, rule: str = "exact", backbone: ir.Model | None = None) -> Repository:
    return export_repository(sources(models, backbone), ExportOptions(out, cuts=CutOptions(rule))).repository  # type: ignore[arg-type]


def recut(repo: Path, models: Models | None = None, backbone: ir.Model | None = None, **options: bool) -> AddReport:
    return add_tasks(repo, sources(models or {}, backbone), AddOptions(recut=True, **options))


def tuned(blocks: Sequence[int], head: int) -> ir.Model:
    return clipped([seed * head if index in blocks else seed for index, seed in enumerate((1, 2, 3, 4, 5))], WIDTHS, head)


def check_answers(repository: Repository, models: Models) -> None:
    """Raise unless every task of `repository` answers as its whole network."""
    assert repository.tasks.keys() == models.keys()
    checker = ParityChecker(repository)
    for name, model in models.items():
        rows = [
            np.random.default_rng(7).standard_normal((3, *spec.shape)).astype(np.float32)
            for spec in repository.tasks[name].inputs
        ]
        session = open_session(model)
        inputs = {spec.name: values for spec, values in zip(session.get_inputs(), rows, strict=True)}
        for found, expected in zip(checker.compose(name, rows), session.run(None, inputs), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def what_is_used(repository: Repository) -> list[tuple[object, ...]]:
    """Return what the segments of the tasks are, but for their names, which may come from earlier times."""
    unused, contents = unused_segments(repository), contents_of(repository, {})
    used = [segment for name, segment in repository.segments.items() if name not in unused]
    return sorted((contents[s.name], s.outputs, s.macs, s.weight_bytes) for s in used)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 4)), min_size=3, max_size=3), st.sampled_from(RULES), st.booleans())
def test_what_is_added_after_any_export_answers_as_its_own_network(
    tmp_path_factory: pytest.TempPathFactory, family: list[set[int]], rule: str, first_recut: bool
) -> None:
    repo = tmp_path_factory.mktemp("clipped") / "repo"
    one, two, three = (tuned(sorted(blocks), head) for head, blocks in enumerate(family, 20))
    export(repo, {"one": one, "two": two}, rule)
    if first_recut:
        recut(repo)
    add_tasks(repo, sources({"three": three}), AddOptions())
    check_answers(read_repository(repo), {"one": one, "two": two, "three": three})


NETS: dict[str, ir.Model] = {
    "probe": plain(FROZEN, 20),
    "late": plain({**FROZEN, "b4": 40}, 21),
    "early": plain({**FROZEN, "b2": 20}, 22),
    "twin": siamese({"b3": 33, "b4": 44}, 23),
    "embed": with_embedding(24),
    "side": with_side_head(25),
    "joint": with_joint_end(26),
    "clip": tuned([2], 27),
    "clipped": tuned([0, 4], 28),
}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(NETS)), min_size=2, max_size=4, unique=True), st.sampled_from(RULES), st.booleans())
def test_tasks_that_came_one_by_one_are_cut_as_if_they_had_been_exported_together(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], rule: str, at_the_end: bool
) -> None:
    folder = tmp_path_factory.mktemp("together")
    models = {name: NETS[name] for name in names}
    first, *others = names
    export(folder / "grown", {first: models[first]}, rule)
    for name in others:
        add_tasks(folder / "grown", sources({name: models[name]}), AddOptions(recut=not at_the_end))
    report = recut(folder / "grown") if at_the_end else None
    grown, together = read_repository(folder / "grown"), export(folder / "together", models, rule)
    assert what_is_used(grown) == what_is_used(together)
    assert (len(grown.cuts_left_out), grown.cut_rule) == (len(together.cuts_left_out), rule)
    check_answers(grown, models)
    assert report is None or set(report.kept) | set(report.new) == grown.segments.keys() - unused_segments(grown).keys()


def test_a_network_put_together_again_is_the_one_that_was_exported(tmp_path: Path) -> None:
    models = {**NETS, "other": with_metadata(29)}
    for family in (NETS.keys(), {"other"}):
        repository = export(tmp_path / f"of-{len(family)}", {name: models[name] for name in family})
        (tmp_path / "scratch").mkdir(exist_ok=True)
        repository_chains = read_repository_chains(repository, WeightStore(tmp_path / "scratch"))
        for name, task in repository.tasks.items():
            found, expected = (
                make_chain(name, canonicalise(model)) for model in (rejoin(task, repository_chains.models), models[name].clone())
            )
            assert found.blocks == expected.blocks, name
            assert found.outputs == expected.outputs


def test_a_replaced_version_decides_no_cut_and_uses_what_there_is(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, {"probe": NETS["early"], "late": NETS["late"]})
    recut(repo, {"probe": NETS["probe"]}, replace=True)
    repository = read_repository(repo)
    previous = repository.tasks["probe"].previous
    assert previous is not None
    fresh = export(tmp_path / "fresh", {"probe": NETS["probe"], "late": NETS["late"]})
    live = {step.segment for task in repository.tasks.values() for step in task.steps}
    assert len(live) == len(fresh.segments)
    check_answers(repository, {"probe": NETS["probe"], "late": NETS["late"]})
    alone = {"probe": previous, "late": repository.tasks["late"]}
    check_answers(Repository(repo, repository.segments, alone), {"probe": NETS["early"], "late": NETS["late"]})


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    export(tmp_path / "repo", {name: NETS[name] for name in ("probe", "late", "twin")})
    before = read_repository(tmp_path / "repo")
    report = recut(tmp_path / "repo")
    assert (report.new, report.parity_errors) == ((), {})
    assert read_repository(tmp_path / "repo") == before


def test_one_digest_at_two_shapes_in_the_same_place_is_two_segments_with_names_of_their_own(tmp_path: Path) -> None:
    # Two pairs of tasks share an activation each, alone: its role, place and digest are the same, its width is not.
    layers = {"a": (1, 2, 4), "b": (5, 6, 4), "c": (3, 7, 6), "d": (8, 9, 6)}
    models = {name: clipped([one, two], [width, width], 20) for name, (one, two, width) in layers.items()}
    repository = export(tmp_path / "repo", models)
    activations = [segment for segment in repository.segments.values() if segment.blocks == (1, 1)]
    assert {segment.inputs[0].shape for segment in activations} == {(4,), (6,)}
    assert len({segment.digest for segment in activations}) == 1
    assert len({segment.name for segment in activations}) == len(activations)
    check_answers(repository, models)


def test_without_recut_there_must_be_a_task(tmp_path: Path) -> None:
    export(tmp_path / "repo", {"probe": NETS["probe"]})
    with pytest.raises(NoTasks):
        add_tasks(tmp_path / "repo", sources({}), AddOptions())


def test_a_rule_of_another_version_is_named(tmp_path: Path) -> None:
    export(tmp_path / "repo", {"probe": NETS["probe"]}, "stages")
    config = tmp_path / "repo" / "all_tasks" / "config.pbtxt"
    config.write_text(config.read_text().replace('"stages"', '"golden"'))
    with pytest.raises(UnknownCutRule, match=r"'golden', which this version does not know; name one of: "):
        recut(tmp_path / "repo")
    add_tasks(tmp_path / "repo", sources({}), AddOptions(recut=True, cuts=CutOptions("exact")))
    assert read_repository(tmp_path / "repo").cut_rule == "exact"
