"""The OpenAPI document: complete, and its examples work as they stand."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest

from contract.repository import Repository
from serving.protocol.http.app import create_app
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_images import FORM, form


@pytest.fixture
def ask(server: BackgroundServer) -> Iterator[Http]:
    made = Http(server)
    yield made
    made.connection.close()


@pytest.fixture
def schema(ask: Http) -> Any:
    return ask("GET", "/openapi.json")[1]


def operations(schema: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def filled(path: str, operation: Any) -> str:
    """Return `path` with the examples that the document gives for its parameters."""
    examples = {entry["name"]: entry.get("example", "example") for entry in operation.get("parameters", ())}
    return re.sub(r"\{(\w+)\}", lambda match: quote(examples[match[1]]), path)


def test_every_endpoint_is_described_with_its_parameters_and_errors(schema: Any) -> None:
    found = list(operations(schema))
    assert len(found) > 25
    for method, path, operation in found:
        if path == "/metrics":  # for Prometheus; it has no error of ours
            continue
        where = f"{method} {path}"
        assert operation.get("description"), where
        assert operation.get("summary"), where
        assert {"200", "400", "404", "413", "503"} <= operation["responses"].keys(), where
        assert "422" not in operation["responses"], where  # FastAPI's own, which is never sent
        for status, response in operation["responses"].items():
            if status != "200":
                assert response["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody"), where
        assert all(parameter.get("description") for parameter in operation.get("parameters", ())), where


def test_everything_without_a_body_answers_as_documented(ask: Http, schema: Any) -> None:
    for method, path, operation in operations(schema):
        if method == "GET" and path != "/metrics":  # which is no JSON
            status, _ = ask(method, filled(path, operation))
            assert str(status) in operation["responses"], path
            wanted = {501} if path == "/v2/repository/control" else {200}  # this server has no token
            assert status in wanted or "sharedmemory" in path, path


def test_the_examples_of_inference_work(ask: Http, schema: Any) -> None:
    sent = 0
    for method, path, operation in operations(schema):
        if path.endswith("/infer"):
            example = operation["requestBody"]["content"]["application/json"]["example"]
            status, answer = ask(method, filled(path, operation), json.dumps(example))
            assert (status, answer["id"]) == (200, example["id"])
            assert [output["name"] for output in answer["outputs"]] == [output["name"] for output in example["outputs"]]
            sent += 1
    assert sent == 2


def test_the_examples_for_images_work(ask: Http, schema: Any) -> None:
    sent = []
    for method, path, operation in operations(schema):
        for sample in operation.get("x-codeSamples", ()):
            if sample["label"] == "texts":  # in tests/serving/text
                continue
            body, form_body, url = curl(sample["source"])
            assert sample["source"] in operation["requestBody"]["description"]
            target = filled(url.removeprefix("http://127.0.0.1:8000"), operation)
            headers = {"Content_Type": FORM} if form_body else {}
            status, answer = ask(method, target, form_body or body, **headers)
            assert status == 200, (path, answer)
            assert ("images" in answer) == bool(form_body)
            sent.append(path)
    assert sent == ["/predict"] * 2 + ["/predict/{task}"] * 2


def curl(command: str) -> tuple[bytes, bytes, str]:
    """Return the body, the form, and the address of a curl command, every file being PICTURE."""
    program, *arguments, url = shlex.split(command)
    options = list(zip(arguments[::2], arguments[1::2], strict=True))
    assert program == "curl"
    assert all(value.split("=")[-1].startswith("@") for _, value in options)
    files = [(value.split("@")[1], PICTURE) for option, value in options if option == "-F"]
    return PICTURE, form(*files) if files else b"", url


def test_the_other_examples_are_accepted(ask: Http, schema: Any) -> None:
    for method, path, operation in operations(schema):
        if method == "POST" and not path.startswith("/predict") and not path.endswith("/infer"):
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            status, _ = ask(method, filled(path, operation), json.dumps(content.get("example", {})))
            assert status == 200 or (status == 501 and ("sharedmemory" in path or "/repository/models/" in path)), path


def test_the_page_is_there_behind_any_prefix(server: BackgroundServer, ask: Http) -> None:
    """A proxy shows it as /tools/espalier/docs, and passes what is below /tools/espalier on as what it is here."""
    seen = "http://proxy/tools/espalier/"
    ask.connection.request("GET", "/docs")
    response = ask.connection.getresponse()
    page = response.read().decode()
    assert response.status == 200
    assert "http" not in page.replace("http-equiv", "")  # no address elsewhere: there may be no way to the internet
    parts = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    (document,) = re.findall(r"url: '([^']+)'", page)
    assert len(parts) >= 3
    for part in (*parts, document):
        found = urljoin(seen + "docs", part)
        assert found.startswith(seen), part
        ask.connection.request("GET", "/" + found.removeprefix(seen))
        response = ask.connection.getresponse()
        body = response.read()
        assert (response.status, len(body) > 1000) == (200, True), part
    (described,) = json.loads(body)["servers"]  # from where its paths count
    assert urljoin(urljoin(seen, document), described["url"]) == seen


def test_an_empty_repository_is_described_too(engine: Any) -> None:
    app = create_app(Router(Repository(Path("nowhere"), {}, {}), engine))
    assert "/predict/{task}" in app.openapi()["paths"]
