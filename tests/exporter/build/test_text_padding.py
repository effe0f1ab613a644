"""A network may take a mask and not heed it everywhere: its texts are then answered together as they are alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import espalier
from contract.repository import Repository, read_repository
from contract.text import TextInput
from espalier.commands.options.reports import describe_texts
from exporter.add import AddOptions, add_tasks
from exporter.deploy import deploy
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from exporter.sources.tokenizer import TokenizerSource, read_tokenizer
from serving.padding import Unpaddable, padding_of
from tests import words
from tests.exporter.bert import Bert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

HEEDS = Bert((10,), 90, masked=True, length="length")
AVERAGES = replace(HEEDS, mean="all")
TEXTS = ["cat", "the cat sat"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> TokenizerSource:
    return read_tokenizer(words.save(tmp_path))


def sources(tokenizer: TokenizerSource | None, **tasks: Bert) -> Sources:
    return Sources({name: (lambda bert=bert: TaskModel(bert.model(), tokenizer=tokenizer)) for name, bert in tasks.items()})


def text_of(repository: Repository, task: str) -> TextInput:
    text = repository.tasks[task].text
    assert text is not None
    return text


def test_texts_together_are_answered_as_alone(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    export_repository(sources(tokenizer, heeds=HEEDS, averages=AVERAGES), ExportOptions(tmp_path / "repo"))
    add_tasks(tmp_path / "repo", sources(tokenizer, later=replace(AVERAGES, head=91)), AddOptions())
    with espalier.open(tmp_path / "repo") as opened:
        together = opened.predict_texts(TEXTS, top_k=3)
        for place, text in enumerate(TEXTS):
            alone = opened.predict_texts([text], top_k=3)
            for task in ("heeds", "averages", "later"):
                scores = [
                    {label.label: label.score for label in found.tasks[task][at].labels}
                    for found, at in ((together, place), (alone, 0))
                ]
                assert scores[0] == pytest.approx(scores[1], rel=1e-5), task


def test_which_those_are_is_recorded_and_said(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    export_repository(sources(tokenizer, heeds=HEEDS, averages=AVERAGES), ExportOptions(tmp_path / "repo"))
    repository = read_repository(tmp_path / "repo")
    assert {name: text_of(repository, name).padded for name in repository.tasks} == {"heeds": True, "averages": False}
    assert '"padded"' not in text_of(repository, "heeds").to_json()
    said = [line for line in describe_texts(repository.tasks.values()) if "the mask does not hide padding" in line]
    assert [line.startswith("Texts: averages takes") for line in said] == [True]
    with pytest.raises(Unpaddable, match="its mask does not hide what is added"):
        padding_of(repository.tasks["averages"], (5,))
    assert padding_of(repository.tasks["heeds"], (5,)).lengths == (5,)


def test_a_mean_of_the_tokens_that_count_is_no_number_where_none_does(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    """Among the sample's texts of one token are some whose token does not count."""
    counted = replace(HEEDS, mean="counted")
    report = export_repository(sources(tokenizer, counted=counted, heeds=HEEDS), ExportOptions(tmp_path / "repo"))
    assert text_of(report.repository, "counted").padded


def test_a_version_that_keeps_the_tokenizer_is_tried_itself(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    repo = tmp_path / "repo"
    export_repository(sources(tokenizer, mood=HEEDS), ExportOptions(repo))
    for network in (AVERAGES, replace(HEEDS, head=92)):
        deploy(repo, sources(None, mood=network))
        assert text_of(read_repository(repo), "mood").padded is not (network is AVERAGES)
