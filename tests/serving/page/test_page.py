"""The page's addresses: who gets it, what it is allowed to do, and that it says nothing that the API keeps to itself."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.repository import Repository
from espalier.figures.repository.svg import tree_svg
from serving.client import control_model
from serving.errors import RequestRefused
from serving.page.deploys import MOST_DEPLOYS, RecentDeploys
from serving.page.facts import MOST_DRAWN, task_facts, why_no_tree
from serving.server import BackgroundServer
from tests.espalier.families import family
from tests.serving.nets import write_repository as write_plain
from tests.serving.page.nets import write_repository

TOKEN = "secret"


class Asked:
    """One connection to a server with a page; every answer with its headers."""

    def __init__(self, server: BackgroundServer) -> None:
        self.connection = http.client.HTTPConnection(server.http_address, timeout=60)

    def __call__(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        self.connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = self.connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def json(self, path: str) -> Any:
        status, _, body = self(path)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def drawn() -> list[Repository]:
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, drawn: list[Repository]) -> Iterator[BackgroundServer]:
    folder = tmp_path_factory.mktemp("page") / "repo"
    folder.mkdir()
    write_repository(folder)

    def draw(repository: Repository) -> str:
        drawn.append(repository)
        return tree_svg(repository)

    with BackgroundServer(folder, http_port=0, grpc_port=0, threads=1, page=draw, admin_token=TOKEN) as running:
        yield running


@pytest.fixture
def ask(server: BackgroundServer) -> Iterator[Asked]:
    asked = Asked(server)
    yield asked
    asked.connection.close()


def test_browsers_get_the_page_and_who_asks_for_json_hears_what_they_did_before(ask: Asked) -> None:
    status, headers, body = ask("/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (status, headers["content-type"], headers["vary"]) == (200, "text/html; charset=utf-8", "Accept")
    assert body.startswith(b"<!doctype html>")
    assert ask("/")[0] == 200
    status, headers, body = ask("/", accept="application/json")
    assert (status, json.loads(body)) == (404, {"error": "There is nothing at /; GET /docs lists what there is."})


def test_its_policy_allows_nothing_but_its_own_files(ask: Asked) -> None:
    _, headers, body = ask("/")
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert {policy[what] for what in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    text = body.decode()
    assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=|https?://", text)
    assert all(not part.startswith("/") for part in re.findall(r"""(?:src|href)="([^"]+)""", text))  # below any prefix of a proxy


def test_every_part_is_there_and_is_not_sent_twice(ask: Asked) -> None:
    waiting, seen = ["page/style.css", "page/icon.svg", "page/main.js"], set[str]()
    while waiting:
        part = waiting.pop()
        seen.add(part)
        status, headers, body = ask(f"/{part}")
        assert (status, headers["cache-control"]) == (200, "no-cache"), part
        for known in (headers["etag"], f'"other", W/{headers["etag"]}'):  # weak: as proxies make them that compress
            assert ask(f"/{part}", if_none_match=known)[::2] == (304, b"")
        assert ask(f"/{part}", "HEAD")[::2] == (200, b"")
        imported = {f"page/{name}" for name in re.findall(r'from "\./([\w.]+)"', body.decode())}
        waiting += imported - seen
    assert len(seen) > 10
    assert ask("/page/nothing.js")[0] == 404
    assert ask("/page/..%2fpage.py")[0] == 404


def test_the_tree_is_drawn_when_somebody_looks_and_once(ask: Asked, server: BackgroundServer, drawn: list[Repository]) -> None:
    ask.json("/page/tasks")
    before = len(drawn)
    pictures: list[bytes] = []

    def look() -> None:
        asked = Asked(server)
        pictures.append(asked("/page/tree.svg")[2])
        asked.connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) - before <= 1
    assert set(pictures) == {tree_svg(drawn[-1]).encode()}


def test_tasks_and_numbers_are_those_of_the_api(ask: Asked) -> None:
    facts = {task["name"]: task for task in ask.json("/page/tasks")["tasks"]}
    told = {task["name"]: task for task in ask.json("/tasks")["tasks"]}
    assert {name: (task["version"], task["kind"]) for name, task in facts.items()} == {
        name: (task["version"], task["kind"]) for name, task in told.items()
    }
    assert (facts["areas"]["shared"], facts["areas"]["own"]) == (["see"], ["to-areas"])
    assert facts["size"]["canary"] == {"version": "2", "share": 0.25}
    assert (facts["names"]["takes"], facts["plain"]["is_for_people"]) == ("text", False)
    assert ask("/predict/animal", "POST")[0] == 400  # no image: a failure
    numbers = {(row["name"], row["version"]): row for row in ask.json("/page/numbers")["tasks"]}
    assert numbers["animal", "1"]["failures"] >= 1
    assert ("size", "2") in numbers
    assert numbers["vector", "1"]["p50_ms"] is None


def test_deploys_are_told_without_what_is_the_administrators_to_know(ask: Asked, server: BackgroundServer) -> None:
    url = f"http://{server.http_address}"
    control_model(url, "marks", "load", TOKEN)
    with pytest.raises(RequestRefused):
        control_model(url, "nobody", "load", TOKEN)
    failed, done = ask.json("/page/numbers")["deploys"][:2]
    assert (done["action"], done["task"], done["version"], done["ok"]) == ("load", "marks", "1", True)
    assert (failed["task"], failed["ok"], failed["version"]) == ("nobody", False, "")
    assert failed.keys() == {"number", "time_ms", "action", "task", "version", "ok", "seconds"}


def test_old_deploys_are_forgotten() -> None:
    recent = RecentDeploys()
    for number in range(MOST_DEPLOYS + 5):
        recent.deployed(f"task-{number}", 0.1, ok=True)
    kept = recent.newest_first()
    assert (len(kept), kept[0].task, kept[0].number) == (MOST_DEPLOYS, f"task-{MOST_DEPLOYS + 4}", MOST_DEPLOYS + 5)


def test_without_it_everything_is_as_before(tmp_path: Path) -> None:
    write_plain(tmp_path / "repo")
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as server:
        asked = Asked(server)
        for path in ("/", "/page/tasks", "/page/main.js"):
            status, _, body = asked(path)
            assert (status, "There is nothing at" in json.loads(body)["error"]) == (404, True)
        asked.connection.close()


def test_why_there_is_no_tree_is_a_sentence() -> None:
    assert why_no_tree(family([(0, 0), (0, 1)], [4, 2])) == ""
    assert why_no_tree(Repository(Path("nowhere"), {}, {})).startswith("Nothing here was exported")
    many = task_facts(family([(0,)] * (MOST_DRAWN + 1), [4]))
    assert many["no_tree"] == "The tree is drawn of up to 200 tasks; here are 201."
