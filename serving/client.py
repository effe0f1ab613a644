"""Asks a running server about an image, with nothing but the standard library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from serving.errors import InvalidRequest, RequestRefused, ServerUnreachable


def predict(
    url: str, image_bytes: bytes, tasks: Sequence[str] = (), top_k: int = 5, *, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Return the answer of POST /predict at the server `url` for one image; no `tasks` means all of them.

    The answer is {"tasks": {name: {"labels": [{"label", "score"}, ...]}}, "segments": [...], "milliseconds": ...}.
    Raises ServerUnreachable, RequestRefused with the server's sentence, InvalidRequest for a `url` that is none.
    """
    query = urlencode({"top_k": top_k, **({"tasks": ",".join(tasks)} if tasks else {})})
    request = Request(f"{_checked(url)}/predict?{query}", image_bytes, {"Content-Type": "application/octet-stream"})
    try:
        with urlopen(request, timeout=timeout_s) as response:
            return _answer(url, response.read())
    except HTTPError as error:
        with error:
            raise RequestRefused(error.code, _sentence(error)) from error
    except URLError as error:
        raise ServerUnreachable(url, error.reason) from error
    except (OSError, HTTPException) as error:
        raise ServerUnreachable(url, error) from error


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidRequest(f"{url!r} is not the address of a server; give one like http://127.0.0.1:8000.")
    return url.rstrip("/")


def _answer(url: str, body: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(body)
        if "tasks" in answer:
            return answer
    except (ValueError, TypeError):
        pass
    raise ServerUnreachable(url, "what answers there is not an espalier server")


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
