"""Weights that are equal in several segments are stored once, and every command that changes a repository keeps it so."""

from __future__ import annotations

import errno
import os
import shutil
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from contract.costs import separate_cost, shared_cost
from contract.repository import Repository, read_repository
from contract.weight_files import bytes_copied, bytes_stored_once
from espalier.figures.repository.flow import make_flow, mean_cost
from exporter.add import AddOptions, add_tasks
from exporter.build.weight_store import WeightStore
from exporter.errors import DamagedSegment
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from tests.exporter.biased import WIDTH, biased
from tests.exporter.test_recut import check_answers, recut, sources

pytestmark = [pytest.mark.usefixtures("unsynced")]

MATRIX = WIDTH * WIDTH * 4
NETS = {"one": biased(1, 1), "two": biased(2, 2)}


def export(out: Path, names: str = "one two") -> Repository:
    return export_repository(sources({name: NETS[name] for name in names.split()}), ExportOptions(out)).repository


def data_files(repo: Path) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for file in sorted(repo.glob("*/1/*.bin")):
        found.setdefault(file.stat().st_ino, []).append(file)
    return found


def test_equal_matrices_between_other_biases_are_one_file_with_two_names(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo")
    check_answers(read_repository(tmp_path / "repo"), NETS)
    (links,) = data_files(tmp_path / "repo").values()
    assert {file.name for file in links} == set(repository.segments[links[0].parts[-3]].weight_files)
    assert len(links) == 2
    assert links[0].stat().st_size == 2 * MATRIX
    assert all(file.stat().st_size < MATRIX for file in (tmp_path / "repo").glob("*/1/model.onnx"))
    separate, shared = separate_cost(repository, list(NETS)), shared_cost(repository, list(NETS))
    assert separate.weight_bytes - shared.weight_bytes == 2 * MATRIX
    assert separate.macs == shared.macs
    assert bytes_stored_once(repository) == 2 * MATRIX


def test_what_a_choice_of_tasks_loads_counts_files_once(tmp_path: Path) -> None:
    tasks = {**NETS, "three": biased(3, 3), "four": biased(1, 4)}
    repository = export_repository(sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact"))).repository
    flow = make_flow(repository)
    for count in (1, 2, 3, 4):
        costs = [shared_cost(repository, choice).weight_bytes for choice in combinations(tasks, count)]
        assert mean_cost(repository, flow, count).weight_bytes == pytest.approx(fmean(costs))
    files = {file.stat().st_ino: file.stat().st_size for file in (tmp_path / "repo").glob("*/1/*")}
    assert sum(files.values()) < shared_cost(repository, list(tasks)).weight_bytes + 20_000


def test_a_copy_without_links_is_whole_and_said(tmp_path: Path) -> None:
    export(tmp_path / "repo")
    shutil.copytree(tmp_path / "repo", tmp_path / "copy")
    copy = read_repository(tmp_path / "copy")
    check_answers(copy, NETS)
    assert (bytes_copied(copy), bytes_stored_once(copy)) == (2 * MATRIX, 0)
    assert (bytes_copied(read_repository(tmp_path / "repo"))) == 0


def test_what_shares_no_weights_is_one_file_as_ever(tmp_path: Path) -> None:
    tasks = {"one": biased(1, 1, (1, 2)), "two": biased(1, 2, (3, 4))}
    repository = export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository
    assert not data_files(tmp_path / "repo")
    for segment in repository.segments.values():
        assert [file.name for file in repository.model_file(segment.name).parent.iterdir()] == ["model.onnx"]
        assert not segment.weight_files
        assert "weight_files" not in (tmp_path / "repo" / segment.name / "config.pbtxt").read_text()


def test_weights_with_the_same_users_are_together(tmp_path: Path) -> None:
    tasks = {"one": biased(1, 1, (1, 2, 3)), "two": biased(2, 2, (1, 2, 3)), "three": biased(3, 3, (1, 2, 4))}
    repository = export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository
    check_answers(repository, tasks)
    files = data_files(tmp_path / "repo")
    assert sorted((len(links), links[0].stat().st_size) for links in files.values()) == [(2, MATRIX), (3, 2 * MATRIX)]


def test_an_addition_links_what_is_there(tmp_path: Path) -> None:
    export(tmp_path / "repo")
    third = biased(3, 3)
    report = add_tasks(tmp_path / "repo", sources({"three": third}), AddOptions())
    check_answers(read_repository(tmp_path / "repo"), {**NETS, "three": third})
    (links,) = data_files(tmp_path / "repo").values()
    assert len(links) == 3
    assert report.repository.segments[report.new[0]].weight_files == {links[0].name: 2 * MATRIX}


def test_an_addition_that_uses_a_part_of_a_file_has_the_whole_of_it(tmp_path: Path) -> None:
    export(tmp_path / "repo")
    third = biased(3, 3, (1, 4))
    report = add_tasks(tmp_path / "repo", sources({"three": third}), AddOptions())
    check_answers(read_repository(tmp_path / "repo"), {**NETS, "three": third})
    (links,) = data_files(tmp_path / "repo").values()
    assert len(links) == 3
    assert report.repository.segments[report.new[0]].weight_files == {links[0].name: MATRIX}


def test_what_lies_inside_of_a_model_is_stored_again_by_the_first_addition_and_linked_by_the_next(tmp_path: Path) -> None:
    export(tmp_path / "repo", "one")
    before = {file: file.read_bytes() for file in (tmp_path / "repo").glob("one-*/1/*")}
    for name, bias in (("two", 2), ("three", 3)):
        add_tasks(tmp_path / "repo", sources({name: biased(bias, bias)}), AddOptions())
    assert {file: file.read_bytes() for file in (tmp_path / "repo").glob("one-*/1/*")} == before
    (links,) = data_files(tmp_path / "repo").values()
    assert [file.parts[-3].split("-")[0] for file in links] == ["three", "two"]
    check_answers(read_repository(tmp_path / "repo"), {**NETS, "three": biased(3, 3)})


def test_removing_one_task_leaves_the_other_whole(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo)
    (links,) = data_files(repo).values()
    content = links[0].read_bytes()
    unused = remove_tasks(repo, ["one"]).unused
    assert sum(unused.values()) < 2 * MATRIX  # what another name keeps is not freed
    assert collect_garbage(repo) == unused
    (left,) = data_files(repo).values()
    assert [file.read_bytes() for file in left] == [content]
    assert left[0].stat().st_nlink == 1
    check_answers(read_repository(repo), {"two": NETS["two"]})
    add_tasks(repo, sources({"one": NETS["one"]}), AddOptions())
    check_answers(read_repository(repo), NETS)
    assert [len(links) for links in data_files(repo).values()] == [2]


def test_a_replaced_task_links_what_its_previous_version_has(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo)
    add_tasks(repo, sources({"one": biased(5, 1)}), AddOptions(replace=True))
    assert [len(links) for links in data_files(repo).values()] == [3]
    check_answers(read_repository(repo), {**NETS, "one": biased(5, 1)})


def test_where_nothing_can_be_linked_files_are_copied_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    report = export_repository(sources(NETS), ExportOptions(tmp_path / "repo"))
    assert [len(links) for links in data_files(tmp_path / "repo").values()] == [1, 1]
    check_answers(report.repository, NETS)
    assert report.stored.copied == 2 * MATRIX


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_the_file_of_a_segment_that_was_changed_is_named(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo)
    add_tasks(repo, sources({"three": biased(3, 3, (1, 4))}), AddOptions())  # uses a half of the data file

    def refusal() -> str:
        with pytest.raises(DamagedSegment) as refused:
            add_tasks(repo, sources({"four": biased(4, 4)}), AddOptions())
        return str(refused.value)

    (links,) = data_files(repo).values()
    flip(links[0], 5)
    assert f"(another digest): its {links[0].name} was changed; export the repository again." in refusal()
    flip(links[0], 5)
    bias = biased(3, 3).graph.initializers["layer0.bias"].const_value
    assert bias is not None
    model = next(repo.glob("three-*/1/model.onnx"))
    place = model.read_bytes().index(bias.tobytes())
    flip(model, place)
    assert "its model.onnx was changed, or written by another version of espalier; export" in refusal()
    flip(model, place)
    remove_tasks(repo, list(NETS))
    collect_garbage(repo)
    for half in (0, MATRIX):
        flip(model.with_name(links[0].name), half)  # of which nobody takes all that is in it
    assert f"its {links[0].name} or its model.onnx was changed, or written by another version" in refusal()


def test_cutting_anew_links_what_a_copy_has_several_times(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(tmp_path / "old")
    shutil.copytree(tmp_path / "old", repo)
    copies = [links[0] for links in data_files(repo).values()]
    content = copies[0].read_bytes()
    for number, file in enumerate(copies):
        os.link(file, tmp_path / f"kept {number}")
    assert bytes_copied(read_repository(repo)) == 2 * MATRIX
    report = recut(repo)
    assert (bytes_copied(report.repository), len(data_files(repo))) == (0, 1)
    assert all((tmp_path / f"kept {number}").read_bytes() == content for number in (0, 1))  # nothing was written through a link
    check_answers(read_repository(repo), NETS)


def test_cutting_anew_stores_once_what_additions_stored_again(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, "one")
    add_tasks(repo, sources({"two": NETS["two"]}), AddOptions())
    old = next(repo.glob("one-*/1/model.onnx"))
    kept = tmp_path / "kept.onnx"
    os.link(old, kept)
    content = kept.read_bytes()
    report = recut(repo)
    assert kept.read_bytes() == content  # nothing was written through a link
    assert not report.new
    (links,) = data_files(repo).values()
    assert len(links) == 2
    check_answers(read_repository(repo), NETS)
    before = {file: file.stat().st_ino for file in repo.glob("*/1/*")}
    recut(repo)
    assert {file: file.stat().st_ino for file in repo.glob("*/1/*")} == before


def test_a_store_reads_linked_weights(tmp_path: Path) -> None:
    from exporter.build.repository_chains import read_repository_chains

    repository = export(tmp_path / "repo")
    (tmp_path / "scratch").mkdir()
    read = read_repository_chains(repository, WeightStore(tmp_path / "scratch"))
    assert read.digests == {name: segment.digest for name, segment in repository.segments.items()}


def test_what_one_protobuf_cannot_hold_goes_into_a_file_of_its_own_beside_the_linked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.build.weight_store.LARGEST_PROTOBUF", MATRIX // 2)
    tasks = {"one": biased(1, 1, (1, 2, 3)), "two": biased(2, 2, (1, 2, 4))}
    repository = export_repository(sources(tasks), ExportOptions(tmp_path / "repo")).repository
    for name in repository.segments:
        folder = repository.model_file(name).parent
        assert {file.name for file in folder.iterdir()} == {
            "model.onnx",
            "model.onnx.data",
            *repository.segments[name].weight_files,
        }
    check_answers(repository, tasks)
    add_tasks(tmp_path / "repo", sources({"three": biased(3, 3, (1, 2, 3))}), AddOptions())
    check_answers(read_repository(tmp_path / "repo"), {**tasks, "three": biased(3, 3, (1, 2, 3))})
