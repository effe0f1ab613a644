"""What an export was told is in the repository, in words that later versions read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RepositoryError
from contract.repository import Repository
from contract.repository.config import all_tasks_config, parse_origin
from contract.repository.origin import BackboneRecord, Origin, origin_from_json, origin_to_json
from contract.repository.read import read_origin

numbers = st.floats(allow_nan=False, allow_infinity=False)
channels = st.none() | st.tuples(numbers, numbers, numbers)
records = st.builds(BackboneRecord, st.text(), st.text(), st.integers(0, 1 << 62), st.text(), st.text())
origins = st.builds(
    Origin,
    st.none() | records,
    st.sampled_from(["", "none"]),
    st.none() | st.integers(1, 1 << 20),
    channels,
    channels,
    st.none() | numbers,
)

# As the first version that remembered wrote it.
WRITTEN = (
    '{"backbone":{"network":"timm/resnet18 {}","reference":"resnet18@w.pth","sha256":"ab","size_bytes":7,"weights_sha256":"cd"},'
    '"image_size":32,"mean":[0.5,0.25,0.125],"preprocess":"none","snap":0.001}'
)
MEANT = Origin(BackboneRecord("resnet18@w.pth", "ab", 7, "cd", "timm/resnet18 {}"), "none", 32, (0.5, 0.25, 0.125), None, 0.001)


@given(origins)
def test_what_was_written_is_read(origin: Origin) -> None:
    assert origin_from_json(origin_to_json(origin)) == origin


def test_what_the_first_version_wrote_is_read_and_written_again() -> None:
    assert origin_from_json(WRITTEN) == MEANT
    assert origin_to_json(MEANT) == WRITTEN
    assert origin_from_json(WRITTEN.replace('"snap"', '"spin":1,"snap"')) == MEANT  # what a later version adds is passed over


def test_nothing_to_say_takes_no_place(repository: Repository) -> None:
    assert origin_to_json(Origin()) == ""
    said_nothing = all_tasks_config(repository.tasks.values(), origin=Origin())
    assert "origin" not in said_nothing.parameters
    assert parse_origin(said_nothing) == Origin() == repository.origin


def test_what_is_damaged_is_refused_in_a_sentence(repository: Repository) -> None:
    config = all_tasks_config(repository.tasks.values(), origin=MEANT)
    assert parse_origin(config) == MEANT
    config.parameters["origin"].string_value = WRITTEN[:-5]
    with pytest.raises(
        RepositoryError, match=r"The configuration of model 'all_tasks' is incomplete or damaged \(its origin is .*export"
    ):
        parse_origin(config)


def test_a_folder_that_is_no_repository_remembers_nothing(tmp_path: Path) -> None:
    assert read_origin(tmp_path) == read_origin(tmp_path / "nowhere") == Origin()


def test_two_names_of_one_network_are_one() -> None:
    file, moved = BackboneRecord("a@b.pth", "f1", 7, "w", "net"), BackboneRecord("a@c.pth", "f1", 7, "w", "net")
    saved_anew, published = BackboneRecord("a@d.pth", "f2", 8, "w", "net"), BackboneRecord("a", "w", 6, "w", "net")
    assert all(file.is_same(other) for other in (file, moved, saved_anew, published))
    assert (file.has_file, published.has_file) == (True, False)
    other, larger = BackboneRecord("a@b.pth", "f3", 7, "v", "net"), BackboneRecord("a@d.pth", "f4", 7, "w", "net at 64")
    onnx, other_onnx = BackboneRecord("a.onnx", "f5", 7), BackboneRecord("a.onnx", "f6", 7)
    assert not any(one.is_same(two) for one, two in ((file, other), (file, larger), (onnx, other_onnx), (file, onnx)))
