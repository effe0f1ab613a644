"""Networks that take several levels of one backbone: whatever is the same is run once and stored once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as http_client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.plan import make_plan
from contract.repository import Repository, read_repository
from contract.repository.config import parse_text
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.exporter.dense import HEADS, SIZE, Dense

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

Nets = Mapping[str, Dense]
ALL = {"seg": Dense("pyramid"), "cells": Dense("unet", 91), "depth": Dense("hypercolumn", 92), "boxes": Dense("detector", 93)}
ALL |= {"one": Dense("classes", 94), "two": Dense("classes", 95), "three": Dense("early classes", 96)}


def sources(nets: Nets) -> Sources:
    return Sources({name: (lambda net=net: TaskModel(net.model())) for name, net in nets.items()})


def export(out: Path, nets: Nets, rule: str = "exact") -> ExportReport:
    return export_repository(sources(nets), ExportOptions(out, cuts=CutOptions(rule)))  # type: ignore[arg-type]


def check_answers(repository: Repository, nets: Nets) -> None:
    checker = ParityChecker(repository)
    image = np.random.default_rng(3).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    for name, net in nets.items():
        expected = open_session(net.model()).run(None, {"image": image})
        for found, wanted in zip(checker.compose(name, [image]), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def possible_macs(nets: Nets) -> int:
    """MACs of all that the networks compute, equal values once."""
    networks = [Network(name, canonicalise(net.model())) for name, net in nets.items()]
    counted: set[str] = set()
    total = 0
    for network in networks:
        values = frozenset[str]().union(*network.values)
        total += network.macs_of(values - counted)
        counted |= values
    return total


def planned_macs(repository: Repository, *tasks: str) -> int:
    plan = make_plan(repository, tasks or [*repository.tasks])
    return sum(repository.segments[step.segment].macs * len(step.inputs) for step in plan.steps)


def weight_bytes(repository: Repository) -> int:
    return sum(segment.weight_bytes for segment in repository.segments.values())


def test_all_that_is_equal_is_computed_once(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", ALL)
    repository = report.repository
    assert not report.remarks
    assert planned_macs(repository) == possible_macs(ALL)
    trunks = {name: segment for name, segment in repository.segments.items() if name.startswith("trunk")}
    levels = {spec.shape[1] for segment in trunks.values() for spec in segment.outputs if len(spec.shape) == 3}
    assert levels == {SIZE // 2, SIZE // 4, SIZE // 8, SIZE // 16}
    check_answers(repository, ALL)


@pytest.mark.parametrize("rule", ["cheap", "stages"])
def test_whatever_the_rule_the_answers_are_those_of_the_networks(tmp_path: Path, rule: str) -> None:
    check_answers(export(tmp_path / "repo", ALL, rule).repository, ALL)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(sorted(HEADS)), st.sets(st.integers(0, 3), max_size=2)), min_size=2, max_size=4),
    st.booleans(),
)
@example([("stem mask", set()), ("classes", set()), ("pyramid", {3})], True)
def test_whatever_was_tuned_all_that_is_equal_is_computed_once(
    tmp_path_factory: pytest.TempPathFactory, family: list[tuple[str, set[int]]], pooled: bool
) -> None:
    nets = {
        f"task{index}": Dense(
            head, 90 + index, [seed + (index + 1) * (level in tuned) for level, seed in enumerate((10, 20, 30, 40))], pooled
        )
        for index, (head, tuned) in enumerate(family)
    }
    repository = export(tmp_path_factory.mktemp("dense") / "repo", nets).repository
    assert planned_macs(repository) == possible_macs(nets)
    for name, net in nets.items():
        assert planned_macs(repository, name) == possible_macs({name: net})  # a request runs nothing that it does not need
    check_answers(repository, nets)


def test_what_one_network_takes_in_front_of_a_pooling_is_a_tap_in_those_added_beside_it(tmp_path: Path) -> None:
    """A classifier takes the pooled stem alone, a U-Net what is in front of the pooling: the convolution is one segment's all the same."""
    nets = {"mask": Dense("stem mask", pooled=True), "one": Dense("classes", 94, pooled=True)}
    other = {"other": Dense("classes", 97, (11, 20, 30, 40), pooled=True)}
    repo = tmp_path / "repo"
    assert planned_macs(export(tmp_path / "fresh", nets).repository) == possible_macs(nets)
    export(repo, other)
    add_tasks(repo, sources(nets), AddOptions(cuts=CutOptions("exact")))
    repository = read_repository(repo)
    assert planned_macs(repository, *nets) == possible_macs(nets)
    check_answers(repository, {**nets, **other})


def test_a_dense_head_that_comes_later_uses_what_there_is_and_recutting_shares_the_rest(tmp_path: Path) -> None:
    first, later = {"one": ALL["one"], "seg": ALL["seg"]}, {"cells": ALL["cells"], "boxes": ALL["boxes"]}
    repo = tmp_path / "repo"
    export(repo, first)
    add_tasks(repo, sources(later), AddOptions())
    repository = read_repository(repo)
    assert planned_macs(repository) == possible_macs({**first, **later})  # the pyramid takes all levels already
    add_tasks(repo, sources({"three": ALL["three"]}), AddOptions())
    add_tasks(repo, sources({}), AddOptions(recut=True))
    check_answers(read_repository(repo), {**first, **later, "three": ALL["three"]})


def with_backbone(nets: Nets) -> Sources:
    """The backbone that was trained on other classes, and tasks."""
    return Sources(sources(nets).tasks, lambda: TaskModel(Dense("classes", 99).model()))


@pytest.mark.parametrize("later", ["unet", "pyramid", "hypercolumn", "detector"])
def test_a_unet_that_is_added_after_classifiers_shares_all_that_is_equal(tmp_path: Path, later: str) -> None:
    repo = tmp_path / "repo"
    first, dense = {"one": ALL["one"], "two": ALL["two"]}, {"later": Dense(later, 97)}
    report = export_repository(with_backbone(first), ExportOptions(repo, cuts=CutOptions("exact")))
    (trunk,) = (segment for name, segment in report.repository.segments.items() if name.startswith("trunk"))
    assert [spec.shape[1] for spec in trunk.outputs if len(spec.shape) == 3] == [SIZE // 2, SIZE // 4, SIZE // 8, SIZE // 16]
    added = add_tasks(repo, sources(dense), AddOptions())
    assert planned_macs(added.repository) == possible_macs({**first, **dense})
    assert added.missed["later"].macs == 0
    assert trunk.name in added.kept
    check_answers(read_repository(repo), {**first, **dense})


def test_levels_that_nobody_takes_stay_when_all_is_cut_anew_and_change_no_plan(tmp_path: Path) -> None:
    first = {"one": ALL["one"], "two": ALL["two"]}
    report = export_repository(with_backbone(first), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    plain = export(tmp_path / "plain", first)
    assert [len(task.steps) for task in report.repository.tasks.values()] == [
        len(task.steps) for task in plain.repository.tasks.values()
    ]
    assert add_tasks(tmp_path / "repo", sources({}), AddOptions(recut=True)).new == ()


def test_a_dense_head_behind_a_backbone_without_levels_is_told_what_recutting_would_share(tmp_path: Path) -> None:
    first, later = {"one": ALL["one"], "two": ALL["two"]}, {"cells": ALL["cells"]}
    export(tmp_path / "repo", first)
    missed = add_tasks(tmp_path / "repo", sources(later), AddOptions()).missed["cells"]
    assert missed.macs == possible_macs(first) + possible_macs(later) - possible_macs({**first, **later})
    assert missed.weight_bytes > 10_000


def test_a_server_answers_each_head_and_all_of_them(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", ALL).repository
    image = np.random.default_rng(3).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    with BackgroundServer(repository.path, http_port=0, grpc_port=0) as server:
        client = http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}")
        given = http_client.InferInput("image", image.shape, "FP32")
        given.set_data_from_numpy(image)
        together = client.infer("all_tasks", [given])
        for name, net in ALL.items():
            alone = client.infer(name, [given])
            names = [output["name"] for output in client.get_model_metadata(name)["outputs"]]
            for output, wanted in zip(names, open_session(net.model()).run(None, {"image": image}), strict=True):
                np.testing.assert_allclose(alone.as_numpy(output), wanted, atol=1e-5)
                np.testing.assert_allclose(together.as_numpy(output), wanted, atol=1e-5)
        client.close()


def test_tensors_that_a_task_does_not_take_are_not_in_its_ensemble_and_are_named_all_the_same(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", ALL).repository
    config = parse_text((repository.path / "one" / "config.pbtxt").read_text(), "one")
    taken = {name for step in config.ensemble_scheduling.step for name in step.input_map.values()} | {"one"}
    assert taken.issuperset(name for step in config.ensemble_scheduling.step for name in step.output_map.values())
    steps = read_repository(repository.path).tasks["one"].steps
    assert steps == repository.tasks["one"].steps
    assert all(len(step.outputs) == len(repository.segments[step.segment].outputs) for step in steps)
    assert not taken.issuperset(name for step in steps for name in step.outputs)


def test_a_frozen_decoder_behind_a_tuned_backbone_is_stored_once(tmp_path: Path) -> None:
    nets = {"one": Dense("pyramid", 90), "two": Dense("pyramid", 90, (11, 20, 30, 40))}
    repository = export(tmp_path / "repo", nets).repository
    alone = weight_bytes(export(tmp_path / "alone", {"one": nets["one"]}).repository)
    assert weight_bytes(repository) == alone + level_bytes(nets["two"])
    check_answers(repository, nets)


def level_bytes(net: Dense) -> int:
    """The size of the weights of the first level."""
    initializers = net.model().graph.initializers
    return sum(
        value.const_value.nbytes for name, value in initializers.items() if name.startswith("level0") and value.const_value
    )
