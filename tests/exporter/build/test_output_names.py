"""Outputs are told apart whatever a network calls them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.add import AddOptions, add_tasks
from exporter.build.describe import explain_output_names, output_names
from exporter.errors import SameOutputNames
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.test_wirings import answers, rows, whole
from tests.exporter.wired import Wired

several = st.lists(st.text("ab_/:é", min_size=1, max_size=4), min_size=2, max_size=6, unique=True)


@given(several, st.randoms())
def test_names_are_distinct_whatever_the_order_and_stay_when_they_are_read_back(names: list[str], random: object) -> None:
    with suppress(SameOutputNames):
        made = dict(zip(names, output_names("t", names), strict=True))
        assert len(set(made.values())) == len(names)
        assert all(re.fullmatch(r"t\.[A-Za-z0-9_.-]+", name) for name in made.values())
        mixed = random.sample(names, len(names))  # type: ignore[attr-defined]
        assert output_names("t", mixed) == tuple(made[name] for name in mixed)
        assert output_names("t", list(made.values())) == tuple(made.values())


@given(several)
def test_names_that_do_not_collide_are_as_they_always_were(names: list[str]) -> None:
    before = [re.sub(r"[^A-Za-z0-9_.-]", "_", name) for name in names]
    with suppress(SameOutputNames):
        for name, old, new in zip(names, before, output_names("t", names), strict=True):
            assert new == f"t.{old}" or (before.count(old) > 1 and name != old)


def test_what_cannot_be_told_apart_is_refused() -> None:
    words = "Outputs 't.a' and 'a' of task 't' would both be called 't.a'; export the network with other names."
    with pytest.raises(SameOutputNames, match=f"^{re.escape(words)}$"):
        output_names("t", ["t.a", "a"])
    assert output_names("t", ["a/b"]) == ("t",)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/b", "a:b"], "gives 'a/b' as 't.a_2f_b' and 'a:b' as 't.a_3a_b'."),
        (["a/b", "a_b", "c"], "gives 'a/b' as 't.a_2f_b'."),
        (["a/b", "c"], "gives 'a/b' as 't.a_b'."),
        (["a", "t.c"], None),
        (["a/b"], None),
    ],
)
def test_what_is_called_otherwise_is_said(names: list[str], words: str | None) -> None:
    assert explain_output_names("t", names) == words


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_outputs_with_odd_names_are_exported_and_added_apart(tmp_path: Path) -> None:
    net = Wired()
    net.layer("image", "b1", 1)
    outputs = {"a/b": "t.a_2f_b", "a:b": "t.a_3a_b"}
    for seed, name in enumerate(outputs):
        net.layer("b1", name, seed, 3)
    make = lambda: net.model(*outputs)  # noqa: E731
    report = export_repository(Sources({"t": lambda: TaskModel(make())}), ExportOptions(tmp_path / "repo"))
    assert report.remarks == {"t": "gives 'a/b' as 't.a_2f_b' and 'a:b' as 't.a_3a_b'."}
    added = add_tasks(tmp_path / "repo", Sources({"u": lambda: TaskModel(make())}), AddOptions())
    assert added.remarks == {"u": "gives 'a/b' as 'u.a_2f_b' and 'a:b' as 'u.a_3a_b'."}
    found, _ = answers(added.repository, ["t", "u"], rows(3))
    for name, values in whole(make, rows(3)).items():
        assert (found[outputs[name]] == found[outputs[name].replace("t.", "u.")]).all()
        assert abs(found[outputs[name]] - values).max() < 1e-5
