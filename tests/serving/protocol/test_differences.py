"""Where ours and Triton differ is documented; and the family of networks that both serve is written as the exporter would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contract.repository.write import write_configs
from tests.serving.nets import write_repository
from tests.serving.protocol.differences import DIFFERENCES

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[3] / "docs/reference/wire.md"


def test_the_family_of_networks_is_written_as_the_exporter_writes(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "ours")
    for segment in repository.segments:
        (tmp_path / "exporter" / segment).mkdir(parents=True)
        shutil.copytree(tmp_path / "ours" / segment / "1", tmp_path / "exporter" / segment / "1")
    write_configs(tmp_path / "exporter", repository.segments, repository.tasks)
    assert _files(tmp_path / "ours") == _files(tmp_path / "exporter")


def _files(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_differences_are_documented_and_are_some(case: str) -> None:
    difference = DIFFERENCES[case]
    assert difference.ours != difference.triton
    assert difference.row(case) in DOCS.read_text().splitlines()
