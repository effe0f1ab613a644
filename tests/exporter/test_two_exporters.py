"""Two teams tune one backbone, and export it by torch's two exporters: they share as with one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.add import AddOptions, add_tasks
from exporter.export import ExportOptions, export_repository
from exporter.graph.chain import Chain
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.onnx_file import load_onnx
from exporter.sources.sandbox import analyse
from tests.exporter.exported import FAMILIES, NEW, OLD, PLAIN, WITHOUT_BATCHNORM, write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight", "small_sizes")]

EXACT = CutOptions("exact")


def chain(path: Path) -> Chain:
    return analyse(path.name, load_onnx(path))[1]


def shared_macs(left: Chain, right: Chain) -> int:
    known = {tap.address for block in left.blocks for tap in block.outputs}
    return sum(block.macs for block in right.blocks if block.end.address in known)


@pytest.mark.parametrize("family", WITHOUT_BATCHNORM)
def test_the_old_exporter_shares_with_the_new_one_as_with_itself(tmp_path: Path, family: str) -> None:
    old, new = (chain(write(family, how, tmp_path / f"{how}.onnx")) for how in (OLD, NEW))
    other = chain(write(family, OLD, tmp_path / "tuned.onnx", tuned=True))
    assert [block.digest for block in new.blocks] == [block.digest for block in old.blocks]
    assert 0 < shared_macs(old, other) < other.macs
    assert shared_macs(new, other) == shared_macs(old, other)


@pytest.mark.parametrize("family", ["mobilenet", "swin", "bert"])
def test_what_the_new_exporter_optimises_shares_with_what_it_does_not(tmp_path: Path, family: str) -> None:
    new, plain = (chain(write(family, how, tmp_path / f"{how}.onnx")) for how in (NEW, PLAIN))
    assert [block.digest for block in plain.blocks] == [block.digest for block in new.blocks]


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - set(WITHOUT_BATCHNORM)))
def test_where_batchnorm_was_folded_weights_that_differ_by_rounding_are_taken_as_equal(tmp_path: Path, family: str) -> None:
    a = write(family, OLD, tmp_path / "a.onnx")
    b = write(family, NEW, tmp_path / "b.onnx", tuned=True)
    c = write(family, OLD, tmp_path / "c.onnx", tuned=True)
    mixed = export_repository(open_sources(None, {"a": a, "b": b}), ExportOptions(tmp_path / "mixed", cuts=EXACT))
    alike = export_repository(open_sources(None, {"a": a, "c": c}), ExportOptions(tmp_path / "alike", cuts=EXACT))
    assert mixed.plan.forks == {"a": alike.plan.forks["a"], "b": alike.plan.forks["c"]}
    assert shared_macs(mixed.chains["a"], mixed.chains["b"]) == shared_macs(alike.chains["a"], alike.chains["c"]) > 0
    assert not alike.remarks
    assert len(mixed.remarks) <= 1  # of the one whose weights were not taken; on some processors all are equal to the bit
    assert all("which are its own but for rounding" in remark for remark in mixed.remarks.values())
    assert max(mixed.parity_errors.values()) < 1e-5
    added = add_tasks(tmp_path / "mixed", open_sources(None, {"d": write(family, PLAIN, tmp_path / "d.onnx")}), AddOptions())
    assert [step.segment for step in added.repository.tasks["d"].steps] == [
        step.segment for step in added.repository.tasks["a"].steps
    ]


def test_a_repository_of_both_answers_as_the_files_do(tmp_path: Path) -> None:
    """The export itself compares the composed segments with each file as it was given."""
    files = {
        "a": write("vit", OLD, tmp_path / "a.onnx"),
        "b": write("vit", NEW, tmp_path / "b.onnx", tuned=True),
    }
    report = export_repository(open_sources(None, files), ExportOptions(tmp_path / "repo", cuts=EXACT))
    assert report.plan.tasks["a"][0].segment == report.plan.tasks["b"][0].segment
    assert all(np.isfinite(error) and error < 1e-4 for error in report.parity_errors.values())
