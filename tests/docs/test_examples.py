"""Each example of the documents is run by a test, or says why not; and whatever it is, its commands and options are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from espalier.cli import app
from tests.documents import ROOT, Block, blocks, commands_of, documents


@pytest.mark.parametrize("document", documents())
def test_every_example_is_run_or_says_why_not(document: str) -> None:
    missing = [block.line for block in blocks(document) if block.is_example and not block.is_marked]
    assert not missing, f"{document}: no mark above the blocks in lines {missing}"


@pytest.mark.parametrize("document", documents())
def test_a_mark_names_a_test_that_reads_the_document_or_a_reason(document: str) -> None:
    for block in blocks(document):
        if block.test:
            assert document.removeprefix("docs/") in (ROOT / block.test).read_text(encoding="utf-8"), f"{document}:{block.line}"
        assert not block.reason or len(block.reason.split()) > 2, f"{document}:{block.line}: {block.reason}"


@pytest.mark.parametrize("document", documents())
def test_every_command_has_the_options_that_an_example_gives_it(document: str) -> None:
    wrong = [f"{document}:{block.line}: {what}" for block in blocks(document) if block.is_example for what in _unknown(block)]
    assert wrong == []


def test_what_there_is_not_is_found() -> None:
    text = "cd x && espalier serve repo --nothing=1\nespalier tune fit --backbone x\nespalier tune nothing # --what\nls --all\n"
    found = list(_unknown(Block("document", 1, "bash", text)))
    assert found == ["espalier serve --nothing", "espalier tune nothing"]


def _unknown(block: Block) -> Iterator[str]:
    if block.language in {"", "bash"}:
        text = re.sub(r"\\\n\s*| && |; do |; ", lambda found: " " if "\n" in found[0] else "\n", block.text)
        for line in re.findall(r"^espalier .*", text, re.MULTILINE):
            yield from _unknown_in(commands_of(line)[0][1:])


def _unknown_in(words: list[str]) -> Iterator[str]:
    command: Any = typer.main.get_command(app)
    name = "espalier"
    while (commands := getattr(command, "commands", None)) and words:
        name = f"{name} {words[0]}"
        if words[0] not in commands:
            yield name
            return
        command, words = commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = (word.partition("=")[0] for word in words if word.startswith("--"))
    yield from (f"{name} {option}" for option in options if option not in known | {"--help"})
