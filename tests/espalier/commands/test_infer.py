"""`espalier infer` and the clients, about texts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import espalier
from contract.errors import InvalidRequest
from serving.errors import RequestRefused
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier as command
from tests.serving.text.test_texts import TEXTS, expected
from tests.serving.text_nets import write_repository

LONG = "the cat sat not far the dog ran far far"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("texts") / "repo").path


@pytest.fixture(scope="module")
def url(repo: Path) -> Iterator[str]:
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as server:
        yield f"http://{server.http_address}"


def test_texts_are_asked_about_on_the_command_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.txt").write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n")
    for arguments in (["--text", TEXTS[0], "--text", TEXTS[1]], ["--text-file", tmp_path / "texts.txt"], ["--text-file", "-"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS[:2])))
        run = command("infer", *arguments, "--task", "mood", "--top-k", "1", "--url", url)
        assert run.returncode == 0, run.stderr
        for text in TEXTS[:2]:
            (line,) = [line for line in run.stdout.splitlines() if text in line]
            assert expected("mood", text)[0] in line
            assert f"{expected('mood', text)[1]:.3f}" in line


def test_a_text_that_is_cut_is_said(url: str) -> None:
    run = command("infer", "--text", LONG, "--task", "mood", "--url", url)
    assert (run.returncode, "Text 1 has 12 tokens, and the network takes 8" in run.stderr) == (2, True)
    run = command("infer", "--text", LONG, "--task", "mood", "--truncate", "--url", url)
    assert (run.returncode, "Of text 1 only the beginning was read, by mood." in run.stdout) == (0, True)


@pytest.mark.parametrize("arguments", [[], ["photo.jpg", "--text", "cat"]])
def test_either_an_image_or_texts(arguments: list[str]) -> None:
    run = command("infer", *arguments)
    assert (run.returncode, "ask about an image or about texts" in " ".join(run.stderr.split())) == (2, True)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for file, words in (("none.txt", "cannot be read (No such file"), ("latin.txt", "is not text in UTF-8")):
        run = command("infer", "--text-file", tmp_path / file)
        assert run.returncode == 2
        assert words.replace(" ", "") in "".join(run.stderr.replace("│", "").split())


def test_clients_ask_about_texts(url: str) -> None:
    one = espalier.Client(url).predict(text=TEXTS[0], tasks=["mood"])
    assert one["tasks"]["mood"]["labels"][0]["label"] == expected("mood", TEXTS[0])[0]
    several = asyncio.run(espalier.AsyncClient(url).predict(text=[*TEXTS, LONG], tasks=["mood"], truncate=True))
    assert [found["truncated"] for found in several["texts"]] == [[], [], [], ["mood"]]
    with pytest.raises(RequestRefused, match="has 12 tokens"):
        espalier.Client(url).predict(text=LONG)
    for image, text in ((None, None), (b"...", "cat")):
        with pytest.raises(InvalidRequest, match="about an image or about text"):
            espalier.Client(url).predict(image, text=text)


def test_texts_are_answered_in_this_process(repo: Path) -> None:
    with espalier.open(repo) as tasks:
        found = tasks.predict_texts([*TEXTS, LONG], ["mood", "topic"], top_k=1, truncate=True)
    assert [answer.labels[0].label for answer in found.tasks["mood"][:3]] == [expected("mood", text)[0] for text in TEXTS]
    assert found.cut == {"mood": {3}, "topic": {3}}


def test_inspect_says_who_takes_text(repo: Path) -> None:
    run = command("inspect", repo)
    assert run.returncode == 0, run.stderr
    assert "Texts: mood, topic, words take at most 8 tokens, and every row has so many, by the tokenizer" in run.stdout
    assert "Texts: shout takes at most 8 tokens" in run.stdout
    assert "as input_ids, attention_mask" in run.stdout
