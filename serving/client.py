"""Asks a running server about an image, texts or arrays, or has it load a task, with nothing but the standard library and numpy.

It goes to the server straight, whatever proxy the environment names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import numpy as np

from contract.dtypes import Array, dtype_name
from contract.errors import InvalidRequest
from contract.tensors import from_bytes, to_bytes
from serving.errors import LoadsRefused, RequestRefused, ServerUnreachable

if TYPE_CHECKING:
    from serving.answers.answer import Show, Vectors

_NOT_FOR_YOU = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_IMPLEMENTED)
_HEADER_LENGTH = "Inference-Header-Content-Length"


def predict(
    url: str,
    image_bytes: bytes,
    tasks: Sequence[str] = (),
    top_k: int | None = None,
    *,
    vectors: Vectors = "list",
    show: Show = (),
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Return the answer of POST /predict at the server `url` for one image; no `tasks` means all of them.

    top_k: how many classes, or boxes; None: as many as the server gives. vectors: how embeddings are written. show: what is put beside the
    answers, "logits", "scores", "preprocessing". The answer is {"tasks": {name: {"kind": "classes", "labels":
    [{"label", "score"}, ...]}}, "segments": [...], "milliseconds": ...}; what stands beside "kind" depends on it (docs/reference/kinds.md).
    Raises ServerUnreachable, RequestRefused with the server's sentence, InvalidRequest for a `url` that is none.
    """
    address = _predict_address(url, tasks, top_k, vectors, show)
    request = Request(address, image_bytes, {"Content-Type": "application/octet-stream"})
    return _answer(url, _send(url, request, timeout_s))


def predict_form(
    url: str,
    form: tuple[bytes, str],
    tasks: Sequence[str] = (),
    top_k: int | None = None,
    *,
    vectors: Vectors = "list",
    show: Show = (),
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Return the answer of POST /predict for a form of several images, its body and Content-Type.

    Its "images" are {"filename", "tasks"} each, in their order; all else is of them together. Raises what `predict` does.
    """
    address = _predict_address(url, tasks, top_k, vectors, show)
    return _answer(url, _send(url, Request(address, form[0], {"Content-Type": form[1]}), timeout_s))


def predict_texts(
    url: str,
    texts: str | Sequence[str],
    tasks: Sequence[str] = (),
    top_k: int | None = None,
    *,
    truncate: bool = False,
    vectors: Vectors = "list",
    show: Show = (),
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Return the answer of POST /predict at the server `url` for one text or several; no `tasks` means all that take text.

    The answer to one is as of `predict`, with the "truncated" tasks, which have read its beginning alone; to several {"texts": [one for
    each], "segments": ...}. truncate: whether a text that is too long may be cut; otherwise it is refused.
    vectors, show: as of `predict`. Raises what that does.
    """
    asked: dict[str, Any] = {"text": texts if isinstance(texts, str) else list(texts), "truncate": truncate}
    asked |= {"top_k": top_k} if top_k is not None else {}
    body = json.dumps(asked | ({"tasks": list(tasks)} if tasks else {})).encode()
    address = _predict_address(url, (), None, vectors, show)
    request = Request(address, body, {"Content-Type": "application/json"})
    return _answer(url, _send(url, request, timeout_s))


def _predict_address(url: str, tasks: Sequence[str], top_k: int | None, vectors: Vectors, show: Show) -> str:
    """Return the address of /predict with what is asked for; what is as usual is left out."""
    asked = {
        "top_k": top_k,
        "tasks": ",".join(tasks),
        "vectors": vectors if vectors != "list" else "",
        "show": show if isinstance(show, str) else ",".join(show),
    }
    query = urlencode({name: value for name, value in asked.items() if value not in (None, "")})
    return f"{checked_url(url)}/predict{'?' if query else ''}{query}"


def infer(
    url: str, model: str, inputs: Mapping[str, Array], outputs: Sequence[str] = (), *, timeout_s: float = 60.0
) -> dict[str, Array]:
    """Return what `model` (a task, "all_tasks") at the server `url` answers to arrays, by name, each of shape (rows, ...) of any size.

    outputs: no name means all. Raises what `predict` does, and InvalidRequest for an array of a type that the v2 protocol has not.
    """
    data = [to_bytes(np.asarray(values)) for values in inputs.values()]
    tensors = [
        {
            "name": name,
            "datatype": dtype_name(np.asarray(values)),
            "shape": np.shape(values),
            "parameters": {"binary_data_size": len(part)},
        }
        for (name, values), part in zip(inputs.items(), data, strict=True)
    ]
    asked: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    if outputs:
        asked["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    header = json.dumps(asked).encode()
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
    request = Request(f"{checked_url(url)}/v2/models/{quote(model, safe='')}/infer", b"".join([header, *data]), headers)
    body, answered = _exchange(url, request, timeout_s)
    try:
        return _tensors(body, int(answered.get(_HEADER_LENGTH, "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerUnreachable(url, "what answers there is not an espalier server") from error


def _tensors(body: bytes, header_length: int) -> dict[str, Array]:
    """Return the tensors of an answer in binary, by name. Raises ValueError, KeyError, TypeError, AttributeError, InvalidRequest."""
    found: dict[str, Array] = {}
    start = header_length
    for tensor in json.loads(body[:header_length])["outputs"]:
        end = start + tensor["parameters"]["binary_data_size"]
        found[tensor["name"]] = from_bytes(tensor["name"], tensor["datatype"], tensor["shape"], memoryview(body)[start:end])
        start = end
    return found


def control_model(url: str, model: str, action: Literal["load", "unload"], token: str, *, timeout_s: float = 600.0) -> None:
    """Have the server `url` load `model` as its repository says now, or unload it; return when it has done so.

    token: the server's admin token. Raises ServerUnreachable, RequestRefused with the server's sentence,
    InvalidRequest for a `url` that is none.
    """
    address = f"{checked_url(url)}/v2/repository/models/{quote(model, safe='')}/{action}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    _send(url, Request(address, b"{}", headers), timeout_s)


def check_control(url: str, token: str, *, timeout_s: float = 60.0) -> None:
    """Ask the server `url` whether it loads and unloads models for who has `token`; one of an earlier version cannot say, and may.

    Raises LoadsRefused where it does not, and what `control_model` does.
    """
    request = Request(f"{checked_url(url)}/v2/repository/control", headers={"Authorization": f"Bearer {token}"})
    try:
        _send(url, request, timeout_s)
    except RequestRefused as error:
        if error.status in _NOT_FOR_YOU:
            raise LoadsRefused(url, error) from error
        if error.status != HTTPStatus.NOT_FOUND:
            raise


def _send(url: str, request: Request, timeout_s: float) -> bytes:
    return _exchange(url, request, timeout_s)[0]


def _exchange(url: str, request: Request, timeout_s: float) -> tuple[bytes, Mapping[str, str]]:
    """Return the body and the headers of the answer."""
    try:
        # Not through a proxy of the environment's: it would see the token, and this machine's own addresses are not its.
        with build_opener(ProxyHandler({}), _NoRedirects).open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
            return body, response.headers
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
        if "tasks" in answer or "texts" in answer or "images" in answer:
            return answer
    except (ValueError, TypeError):
        pass
    raise ServerUnreachable(url, "what answers there is not an espalier server")


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
