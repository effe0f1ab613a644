"""What a request to `/predict` may ask of its run: deadlines, priorities, partial results."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, PREPROCESSING, make_repository
from tests.serving.protocol.held_requests import NO_HEAD, Failing, Queue, served, wait_for
from tests.serving.protocol.http.test_http import PICTURE
from tests.serving.protocol.test_images import FORM, form

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


def predict(server: BackgroundServer, path: str = "/predict", body: bytes = PICTURE, **query: Any) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        headers = {} if body is PICTURE else {"Content-Type": FORM}
        connection.request("POST", f"{path}?{urlencode(query)}", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize("path", ["/predict", "/predict/late"])
def test_predict_has_a_deadline(queue: Queue, path: str) -> None:
    status, answer = predict(queue.server, path, timeout=20_000)
    assert (status, "deadline has passed" in answer["error"]) == (504, True)
    queue.open()
    assert predict(queue.server, path, timeout=60_000_000)[0] == 200
    assert queue.engine.rows_of("trunk") == [1, 1]


def test_predict_has_a_priority_and_says_how_long_it_waited(queue: Queue) -> None:
    def put(count: int, priority: int) -> Future[tuple[int, Any]]:
        body = form(*((f"{number}", PICTURE) for number in range(count)))
        before = queue.engine.waiting_rows
        asked = queue.pool.submit(predict, queue.server, "/predict/late", body, priority=priority)
        wait_for(lambda: queue.engine.waiting_rows == before + count)
        return asked

    asked = [put(2, 3), put(3, 0), put(4, 1)]
    time.sleep(0.02)
    queue.open()
    answers = [reply.result(20) for reply in asked]
    assert {status for status, _ in answers} == {200}
    assert queue.engine.rows_of("trunk") == [1, 4, 3, 2]
    timings = [answer["timings"] for _, answer in answers]
    assert all(0 < times["queue_ms"] <= times["total_ms"] for times in timings), timings
    first, second, third = (times["queue_ms"] for times in timings)
    assert first >= 20, timings  # it waited before the second was asked
    assert first > third, timings  # it was asked before, and ran after it
    assert first > second, timings
    assert all(answer["errors"] == {} for _, answer in answers)


def test_predict_names_what_failed_beside_the_others() -> None:
    with served(Failing("head-parity")) as server:
        status, answer = predict(server)
        assert (status, answer["error"]) == (503, f"Task 'parity' could not be computed: {NO_HEAD}")
        for body in (PICTURE, form(("a", PICTURE))):
            status, answer = predict(server, body=body, partial_results="true", tasks="late,parity,cats")
            assert status == 200
            assert list((answer if body is PICTURE else answer["images"][0])["tasks"]) == ["late"]
            unknown = "Unknown task 'cats'; known are: colour, late, parity, probe."
            assert answer["errors"] == {"cats": unknown, "parity": NO_HEAD}
        assert predict(server, partial_results="true", tasks="parity")[0] == 503
        status, answer = predict(server, partial_results="true", tasks="cats")
        assert (status, answer["error"]) == (400, "Unknown task 'cats'; known are: colour, late, parity, probe.")


def test_predict_gives_what_other_preprocessing_could_do(tmp_path: Path) -> None:
    """Tasks with other preprocessing run by themselves: that one of those runs gives nothing is no fault of the others."""
    apart = make_repository(tmp_path, {"late": replace(PREPROCESSING, crop_fraction=0.5)})
    with served(Failing("branch-late"), apart) as server:
        assert predict(server)[0] == 503
        status, answer = predict(server, partial_results="true")
        assert (status, answer["tasks"].keys()) == (200, {*CHAINS} - {"late"})
        assert answer["errors"] == {"late": "There is no function for segment 'branch-late'."}


@pytest.mark.parametrize("query", ["timeout=-1", "timeout=soon", "priority=-1", "partial_results=perhaps", f"timeout={2**70}"])
def test_predict_refuses_terms_that_make_no_sense(server: BackgroundServer, query: str) -> None:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("POST", f"/predict?{query}", PICTURE)
        response = connection.getresponse()
        assert response.status == 400
        assert query.partition("=")[0] in json.loads(response.read())["error"]
