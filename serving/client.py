"""Asks a running server about an image or texts, or has it load a task, with nothing but the standard library.

It goes to the server straight, whatever proxy the environment names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from contract.errors import InvalidRequest
from serving.errors import RequestRefused, ServerUnreachable


def predict(
    url: str, image_bytes: bytes, tasks: Sequence[str] = (), top_k: int = 5, *, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Return the answer of POST /predict at the server `url` for one image; no `tasks` means all of them.

    The answer is {"tasks": {name: {"labels": [{"label", "score"}, ...]}}, "segments": [...], "milliseconds": ...}.
    Raises ServerUnreachable, RequestRefused with the server's sentence, InvalidRequest for a `url` that is none.
    """
    query = urlencode({"top_k": top_k, **({"tasks": ",".join(tasks)} if tasks else {})})
    request = Request(f"{checked_url(url)}/predict?{query}", image_bytes, {"Content-Type": "application/octet-stream"})
    return _answer(url, _send(url, request, timeout_s))


def predict_texts(
    url: str,
    texts: str | Sequence[str],
    tasks: Sequence[str] = (),
    top_k: int = 5,
    *,
    truncate: bool = False,
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Return the answer of POST /predict at the server `url` for one text or several; no `tasks` means all that take text.

    The answer to one is as of `predict`, with the "truncated" tasks, which have read its beginning alone; to several {"texts": [one for
    each], "segments": ...}. truncate: whether a text that is too long may be cut; otherwise it is refused. Raises what `predict` does.
    """
    asked: dict[str, Any] = {"text": texts if isinstance(texts, str) else list(texts), "top_k": top_k, "truncate": truncate}
    body = json.dumps(asked | ({"tasks": list(tasks)} if tasks else {})).encode()
    request = Request(f"{checked_url(url)}/predict", body, {"Content-Type": "application/json"})
    return _answer(url, _send(url, request, timeout_s))


def control_model(url: str, model: str, action: Literal["load", "unload"], token: str, *, timeout_s: float = 600.0) -> None:
    """Have the server `url` load `model` as its repository says now, or unload it; return when it has done so.

    token: the server's admin token. Raises ServerUnreachable, RequestRefused with the server's sentence,
    InvalidRequest for a `url` that is none.
    """
    address = f"{checked_url(url)}/v2/repository/models/{quote(model, safe='')}/{action}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    _send(url, Request(address, b"{}", headers), timeout_s)


def _send(url: str, request: Request, timeout_s: float) -> bytes:
    try:
        # Not through a proxy of the environment's: it would see the token, and this machine's own addresses are not its.
        with build_opener(ProxyHandler({}), _NoRedirects).open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
            return body
    except HTTPError as error:
        with error:
            raise RequestRefused(error.code, _sentence(error)) from error
    except URLError as error:
        raise ServerUnreachable(url, error.reason) from error
    except (OSError, HTTPException) as error:
        raise ServerUnreachable(url, error) from error


class _NoRedirects(HTTPRedirectHandler):
    """A redirected POST would become a GET, and take the token to wherever it is sent."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Follow nothing: the answer counts as a refusal."""


def checked_url(url: str) -> str:
    """Return `url` without a slash at its end. Raises InvalidRequest unless it is the address of a server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidRequest(f"{url!r} is not the address of a server; give one like http://127.0.0.1:8000.")
    return url.rstrip("/")


def _answer(url: str, body: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(body)
        if "tasks" in answer or "texts" in answer:
            return answer
    except (ValueError, TypeError):
        pass
    raise ServerUnreachable(url, "what answers there is not an espalier server")


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
