"""The same weights at several resolutions: planned by digest and shape, exported, added to and cut anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.repository import model, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.build.repository_chains import read_repository_chains
from exporter.build.weight_store import WeightStore
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sharing.plan import digest_of_blocks
from tests.exporter.convolved import convolved
from tests.exporter.test_recut import check_answers, sources

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

# One convolution, before a pooling in one network and before another convolution in the other.
POOLED, PLAIN, OTHER = convolved([2, 0, 2, 0, 1], 90), convolved([2, 2, 1, 0, 1], 91), convolved([2, 0, 2, 1], 92)


def test_the_same_convolutions_at_two_resolutions_are_two_segments_and_that_is_said(tmp_path: Path) -> None:
    layers = ([1, 2, 0, 1, 2, 3], [1, 4, 0, 1, 2, 3], [1, 4, 0, 1, 5, 3])
    tasks = {f"task{index}": convolved(given, 90 + index) for index, given in enumerate(layers)}
    report = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    check_answers(report.repository, tasks)
    (small, large) = [
        segment
        for segment in report.repository.segments.values()
        if segment.blocks in ((0, 0), (2, 2)) and segment.parameters == 144
    ]
    assert (large.inputs[0].shape, small.inputs[0].shape) == ((4, 16, 16), (4, 8, 8))
    assert large.digest == small.digest
    assert report.plan.several_shapes == (
        "The same weights take rows of several shapes ([4, 16, 16] and [4, 8, 8]), and a model is made for one: 576 B of weights, in 1 "
        "block, are in several segments."
    )


def test_weights_at_one_resolution_are_stored_once(tmp_path: Path) -> None:
    tasks = {name: convolved([1, 2, 0, 3], head) for name, head in (("one", 90), ("two", 91))}
    report = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert report.plan.several_shapes == ""


@pytest.mark.parametrize("rule", ["cheap", "exact", "stages"])
def test_what_was_cut_at_a_tap_of_another_network_is_read_back(tmp_path: Path, rule: str) -> None:
    """The tap between convolution and pooling is one of PLAIN's. Where no cut was worth it, the segment's file does not show it."""
    report = export_repository(
        sources({"pooled": POOLED, "plain": PLAIN}),
        ExportOptions(tmp_path / "repo", cuts=CutOptions(rule)),  # type: ignore[arg-type]
    )
    read = read_repository_chains(read_repository(tmp_path / "repo"), WeightStore(tmp_path))
    assert read.digests == {name: segment.digest for name, segment in report.plan.segments.items()}
    add_tasks(tmp_path / "repo", sources({"other": OTHER}), AddOptions())
    add_tasks(tmp_path / "repo", sources({}), AddOptions(recut=True))
    check_answers(read_repository(tmp_path / "repo"), {"pooled": POOLED, "plain": PLAIN, "other": OTHER})


def test_what_the_first_version_recorded_of_such_a_segment_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"pooled": POOLED, "plain": PLAIN}
    with monkeypatch.context() as patch:
        patch.setattr(model, "DIGEST_VERSION", 1)
        patch.setattr("exporter.build.analysis.Analysis.digest_of", lambda self, part: digest_of_blocks(part))
        export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("cheap")))
    add_tasks(tmp_path / "repo", sources({"other": OTHER}), AddOptions())
    check_answers(read_repository(tmp_path / "repo"), {**tasks, "other": OTHER})


LAYERS = st.lists(st.sampled_from([0, 1, 1, 2, 2, 3]), min_size=2, max_size=6).map(lambda layers: [1, *layers][:6])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LAYERS, min_size=3, max_size=3), st.sampled_from(["cheap", "exact", "stages"]), st.booleans())
def test_whatever_is_pooled_where_all_answer_as_their_networks(
    tmp_path_factory: pytest.TempPathFactory, family: list[list[int]], rule: str, recut: bool
) -> None:
    repo = tmp_path_factory.mktemp("pooled") / "repo"
    one, two, three = (convolved(layers, 90 + i) for i, layers in enumerate(family))
    export_repository(sources({"one": one, "two": two}), ExportOptions(repo, cuts=CutOptions(rule)))  # type: ignore[arg-type]
    add_tasks(repo, sources({"three": three}), AddOptions(recut=recut))
    add_tasks(repo, sources({}), AddOptions(recut=True))
    check_answers(read_repository(repo), {"one": one, "two": two, "three": three})
