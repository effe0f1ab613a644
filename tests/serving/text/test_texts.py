"""Texts in, classes out: by HTTP, by the clients, and in this process."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from contract.errors import ExtraNeeded, RepositoryError
from contract.repository import Repository, read_repository
from contract.repository.config import task_config, to_text
from contract.text import TextInput, Tokenizer
from serving.answers.classes import softmax
from serving.engines.embedded import EmbeddedEngine
from serving.errors import LoadFailed
from serving.router import Router
from serving.server import BackgroundServer
from tests import words
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.text_nets import HEADS, IDS, LABELS, MASK, MOST, answers, ids_of, tokenizer_of, write_repository

TEXTS = ["the cat sat", "not far", "the dog ran far"]
JSON = "application/json"


@pytest.fixture(scope="module", params=[False, True], ids=["of eight tokens", "of any length"])
def repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_repository(tmp_path_factory.mktemp("texts"), free=request.param)


@pytest.fixture(scope="module")
def server(repo: Repository) -> Iterator[BackgroundServer]:
    with BackgroundServer(repo.path, http_port=0, grpc_port=0, threads=1) as running:
        yield running


@pytest.fixture
def ask(server: BackgroundServer) -> Iterator[Http]:
    made = Http(server)
    yield made
    made.connection.close()


def post(ask: Http, body: Any, path: str = "/predict") -> tuple[int, Any]:
    return ask("POST", path, body if isinstance(body, bytes) else json.dumps(body), Content_Type=JSON)


def expected(task: str, text: str) -> tuple[str, float]:
    scores = softmax(answers(task, ids_of(task, text))[None])[0]
    best = int(np.argmax(scores))
    return (LABELS[task][best] if task in LABELS else str(best)), float(scores[best])


def check(task: str, text: str, found: Any) -> None:
    label, score = expected(task, text)
    assert found["labels"][0]["label"] == label
    assert found["labels"][0]["score"] == pytest.approx(score, rel=1e-4)


def test_texts_of_different_lengths_run_the_trunk_once(ask: Http) -> None:
    status, answer = post(ask, {"text": TEXTS, "tasks": ["mood", "topic"]})
    assert status == 200, answer
    for text, found in zip(TEXTS, answer["texts"], strict=True):
        assert (list(found["tasks"]), found["truncated"]) == (["mood", "topic"], [])
        for task in found["tasks"]:
            check(task, text, found["tasks"][task])
    assert {run["segment"]: run["rows"] for run in answer["segments"]} == {"bag": 3, "to-mood": 3, "to-topic": 3}
    assert len(answer["segments"]) == 3


def test_tasks_with_tokenizers_of_their_own_get_their_own_ids(ask: Http) -> None:
    _, answer = post(ask, {"text": TEXTS})
    for text, found in zip(TEXTS, answer["texts"], strict=True):
        assert found["tasks"].keys() == HEADS.keys()  # not the one that answers each token
        for task in HEADS:
            check(task, text, found["tasks"][task])
    assert [run["segment"] for run in answer["segments"]].count("bag") == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict/mood?top_k=2", {"text": TEXTS[0]}),
        ("/predict?tasks=mood&top_k=2", {"text": TEXTS[0]}),
        ("/predict", {"text": TEXTS[0], "tasks": "mood", "top_k": 2}),
    ],
)
def test_one_text_gets_one_answer(ask: Http, path: str, body: Any) -> None:
    status, answer = post(ask, body, path)
    assert (status, list(answer["tasks"]), len(answer["tasks"]["mood"]["labels"])) == (200, ["mood"], 2)
    check("mood", TEXTS[0], answer["tasks"]["mood"])


def test_a_long_text_is_refused_or_cut_and_that_is_said(ask: Http) -> None:
    long = "the cat sat not far the dog ran far far"
    body = {"text": [TEXTS[0], long], "tasks": ["mood"]}
    status, answer = post(ask, body)
    assert (status, answer["error"]) == (
        400,
        f"Text 2 has 12 tokens, and the network takes {MOST}; send a shorter one, or truncate: true to have its beginning answered.",
    )
    _, answer = post(ask, {**body, "truncate": True})
    assert [found["truncated"] for found in answer["texts"]] == [[], ["mood"]]
    check("mood", "the cat sat not far the", answer["texts"][1]["tasks"]["mood"])


def with_other_texts(folder: Path, task: str, **changes: Any) -> Repository:
    """Write networks of any length, one task of which takes texts otherwise."""
    repository = write_repository(folder, free=True)
    text = repository.tasks[task].text
    assert text is not None
    other = replace(repository.tasks[task], text=replace(text, **changes))
    (folder / task / "config.pbtxt").write_text(to_text(task_config(other)))
    return read_repository(folder)


def test_a_text_that_is_too_long_for_one_task_is_answered_by_the_others_on_request(tmp_path: Path) -> None:
    with_other_texts(tmp_path, "topic", most=4)
    refusal = (
        "Text 2 has 5 tokens, and the network takes 4; send a shorter one, or truncate: true to have its beginning answered."
    )
    body = {"text": TEXTS[:1] * 2, "tasks": ["mood", "topic"]}
    body["text"][0] = TEXTS[1]
    with BackgroundServer(tmp_path, http_port=0, grpc_port=0, threads=1) as server:
        ask = Http(server)
        assert post(ask, body) == (400, {"error": refusal})
        status, answer = post(ask, body, "/predict?partial_results=true")
        assert (status, answer["errors"]) == (200, {"topic": refusal})
        for text, found in zip(body["text"], answer["texts"], strict=True):
            assert found["tasks"].keys() == {"mood"}
            check("mood", text, found["tasks"]["mood"])
        assert post(ask, {**body, "tasks": ["topic"]}, "/predict?partial_results=true") == (400, {"error": refusal})
        ask.connection.close()


def test_tasks_of_which_one_may_not_be_padded_run_what_they_share_together(tmp_path: Path) -> None:
    with_other_texts(tmp_path, "topic", padded=False)
    with BackgroundServer(tmp_path, http_port=0, grpc_port=0, threads=1) as server:
        ask = Http(server)
        for texts, lengths in ((TEXTS[:1] * 2, 1), (TEXTS, 3)):
            _, answer = post(ask, {"text": texts, "tasks": ["mood", "topic"]})
            for text, found in zip(texts, answer["texts"], strict=True):
                assert list(found["tasks"]) == ["mood", "topic"]
                for task in found["tasks"]:
                    check(task, text, found["tasks"][task])
            rows = [run["rows"] for run in answer["segments"] if run["segment"] == "bag"]
            assert (len(rows), sum(rows)) == (lengths, len(texts))
        ask.connection.close()


@pytest.mark.parametrize(
    ("body", "path", "sentence"),
    [
        ({"text": []}, "/predict", "No text was given; give at least one."),
        ({"text": ["cat", ""]}, "/predict", "Text 2 is empty; send at least a word."),
        ({"text": ["cat"] * 65}, "/predict", "The request has 65 texts, more than the limit of 64; send fewer at once."),
        (
            {"text": "cat", "tasks": ["words"]},
            "/predict",
            "Task 'words' is of the kind 'tensor', which people do not read; ask for its values",
        ),
        (
            {"text": "cat", "image": "..."},
            "/predict",
            "A request is about texts or about images; 'image' beside text is not read",
        ),
        ({"text": "cat", "texts": []}, "/predict", "Unknown field 'texts'; known are: text, tasks, top_k, truncate"),
        ({"tasks": ["mood"]}, "/predict", "The request's body has no field 'text'; send JSON such as"),
        ({"text": ["cat", 1]}, "/predict", "The field 'text' is ['cat', 1]; give a string or a list of strings."),
        ({"text": "cat", "top_k": "3"}, "/predict", "The field 'top_k' is '3'; give a whole number, at least 1."),
        ({"text": "cat", "top_k": 0}, "/predict", "top_k is 0; ask for at least 1 class."),
        ({"text": "cat", "truncate": "yes"}, "/predict", "The field 'truncate' is 'yes'; give true or false."),
        ({"text": "cat", "tasks": ["moods"]}, "/predict", "Unknown task 'moods'; known are: mood, shout, topic, words."),
        ({"text": "cat", "tasks": ["mood"]}, "/predict/mood", "'tasks' is given in the body and in the address; give it once."),
        (b"text=cat", "/predict", "The request's body is not JSON in UTF-8"),
        (b'{"text": "\\udc00"}', "/predict", "The request's body is not JSON in UTF-8"),
        (b'{"text": "\xff"}', "/predict", "The request's body is not JSON in UTF-8"),
        (b'["cat"]', "/predict", "The request's body is JSON, but not an object such as"),
    ],
)
def test_what_is_no_question_gets_one_sentence(ask: Http, body: Any, path: str, sentence: str) -> None:
    status, answer = post(ask, body, path)
    assert (status, answer["error"][: len(sentence)]) == (400, sentence)


def test_a_body_over_the_limit_is_refused(ask: Http) -> None:
    status, answer = post(ask, {"text": "a " * (1 << 20)})
    assert (status, answer["error"]) == (413, "The request is larger than the limit of 262144 bytes.")


def test_an_image_for_tasks_that_take_text_is_refused(ask: Http) -> None:
    for path, sentence in (
        ("/predict/mood", """Task 'mood' takes text, not images; send {"text": ["..."]} as JSON."""),
        ("/predict", "No task takes images and gives classes; send tensors through v2/models/TASK/infer."),
    ):
        assert ask("POST", path, PICTURE) == (400, {"error": sentence})


def test_text_for_tasks_that_take_images_is_refused(repository: Repository) -> None:
    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1) as images:
        ask = Http(images)
        status, answer = post(ask, {"text": "cat", "tasks": ["late"]})
        assert (status, answer["error"]) == (400, "Task 'late' takes images, so it takes no text; send it what it takes.")
        assert "No task takes text and gives classes" in post(ask, {"text": "cat"})[1]["error"]
        ask.connection.close()


def test_what_cannot_be_asked_is_left_out_if_that_is_allowed(ask: Http) -> None:
    _, answer = post(ask, {"text": "cat", "tasks": ["mood", "words", "none"]}, "/predict?partial_results=true")
    assert (list(answer["tasks"]), answer["errors"].keys()) == (["mood"], {"words", "none"})


def test_ids_over_v2_get_the_same_values(server: BackgroundServer, ask: Http) -> None:
    words_only = ids_of("mood", TEXTS[2])
    ids, mask = np.zeros((2, 1, MOST), np.int64)
    ids[0, : len(words_only)], mask[0, : len(words_only)] = words_only, 1
    inputs = [grpc_client.InferInput(name, ids.shape, "INT64") for name in (IDS, MASK)]
    for tensor, values in zip(inputs, (ids, mask), strict=True):
        tensor.set_data_from_numpy(values)
    with grpc_client.InferenceServerClient(server.grpc_address) as client:
        values = client.infer("mood", inputs).as_numpy("mood")
    _, answer = post(ask, {"text": TEXTS[2], "tasks": ["mood"]})
    assert answer["tasks"]["mood"]["labels"][0]["score"] == pytest.approx(float(softmax(values)[0].max()), rel=1e-5)


def test_tasks_say_how_they_take_text(ask: Http) -> None:
    _, answer = ask("GET", "/tasks")
    mood = next(task for task in answer["tasks"] if task["name"] == "mood")
    assert mood["text"] == {
        "tokenizer": Tokenizer(tokenizer_of("mood")).sha256,
        "ids": "input_ids",
        "mask": "attention_mask",
        "types": "",
        "most_tokens": MOST,
    }


def test_the_example_of_the_documents_works(ask: Http) -> None:
    _, schema = ask("GET", "/openapi.json")
    for path in ("/predict", "/predict/{task}"):
        example = schema["paths"][path]["post"]["requestBody"]["content"][JSON]["example"]
        assert post(ask, {**example, "text": ["cat"]}, path.format(task="mood"))[0] == 200


def test_what_is_refused_at_the_start_and_at_a_load(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")

    async def change() -> None:
        router = Router(repo, EmbeddedEngine(repo, threads=1))
        await router.start()
        try:
            other = words.save(tmp_path, words.tokenizer(("far",)))
            (repo.path / "mood" / "tokenizer.json").unlink()
            other.rename(repo.path / "mood" / "tokenizer.json")
            text = replace(repo.tasks["mood"].text or TextInput("", ""), sha256="0" * 64)
            config = to_text(task_config(replace(repo.tasks["mood"], text=text)))
            (repo.path / "mood" / "config.pbtxt").write_text(config)
            with pytest.raises(LoadFailed, match=r"The tokenizer of task 'mood' is damaged \(it is another one than its config"):
                await router.load("mood")
            found = await router.predict_texts(["cat"], ["mood"])
            assert found.tasks["mood"][0].labels[0].label == expected("mood", "cat")[0]
            with pytest.raises(RepositoryError, match="The tokenizer of task 'mood' is damaged"):
                await Router(read_repository(repo.path), EmbeddedEngine(repo, threads=1)).start()
        finally:
            await router.aclose()

    asyncio.run(change())


def test_without_the_library_ids_are_served_and_text_is_refused(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with caplog.at_level(logging.WARNING), BackgroundServer(repo.path, http_port=0, grpc_port=0, threads=1) as server:
        ask = Http(server)
        status, answer = post(ask, {"text": "cat"})
        assert status == 501
        assert answer["error"] == str(ExtraNeeded("Texts", "tokenizers", "text"))
        ids = {"name": IDS, "datatype": "INT64", "shape": [1, MOST], "data": [4] * MOST}
        body = json.dumps({"inputs": [ids, {**ids, "name": MASK, "data": [1] * MOST}]})
        assert ask("POST", "/v2/models/mood/infer", body)[0] == 200
        ask.connection.close()
    assert [record.message for record in caplog.records if "by ids alone" in record.message] != []


def test_a_client_that_hangs_up_is_no_error(server: BackgroundServer) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=20)
    connection.request("POST", "/predict", json.dumps({"text": ["far " * 1000] * 64}), {"Content-Type": JSON})
    connection.close()
    ask = Http(server)
    assert post(ask, {"text": "cat"})[0] == 200
    ask.connection.close()
