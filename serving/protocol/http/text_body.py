"""The JSON body of a request about texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from contract.errors import InvalidRequest
from contract.units import quoted
from serving.errors import TooManyTexts

_EXAMPLE = '{"text": ["..."], "tasks": ["..."]}'
_PICTURES = ("image", "images", "file", "files")


@dataclass(frozen=True)
class TextBody:
    """What a body asks. is_list: whether the answer is a list, too, or that to one text. tasks, top_k: None: the body says nothing."""

    texts: tuple[str, ...]
    is_list: bool
    tasks: tuple[str, ...] | None = None
    top_k: int | None = None
    truncate: bool = False


def is_json(content_type: str) -> bool:
    """Return whether a body of this Content-Type is JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def read_text_body(body: bytes, limit: int) -> TextBody:
    """Return what `body` asks. limit: the most texts. Raises InvalidRequest, TooManyTexts."""
    fields = _decoded(body)
    for name in fields:
        if name in _PICTURES:
            raise InvalidRequest(
                f"A request is about texts or about images; {name!r} beside text is not read: send the bytes of the image as the body of a "
                "request of its own."
            )
        if name not in ("text", "tasks", "top_k", "truncate"):
            raise InvalidRequest(f"Unknown field {quoted(name)}; known are: text, tasks, top_k, truncate, as in {_EXAMPLE}.")
    given = fields.get("text")
    texts = _strings(given, "text")
    if texts is None:
        raise InvalidRequest(f"The request's body has no field 'text'; send JSON such as {_EXAMPLE}.")
    if len(texts) > limit:
        raise TooManyTexts(len(texts), limit)
    top_k, truncate = fields.get("top_k"), fields.get("truncate", False)
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool)):
        raise InvalidRequest(f"The field 'top_k' is {quoted(top_k)}; give a whole number, at least 1.")
    if not isinstance(truncate, bool):
        raise InvalidRequest(f"The field 'truncate' is {quoted(truncate)}; give true or false.")
    return TextBody(texts, isinstance(given, list), _strings(fields.get("tasks"), "tasks"), top_k, truncate)


def _decoded(body: bytes) -> Mapping[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The request's body is not JSON in UTF-8 ({error}); send such as {_EXAMPLE}.") from error
    if not isinstance(fields, dict):
        raise InvalidRequest(f"The request's body is JSON, but not an object such as {_EXAMPLE}.")
    return fields


def _strings(value: object, name: str) -> tuple[str, ...] | None:
    """Return a string, or a list of strings, as a tuple; None for nothing."""
    if value is None:
        return None
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise InvalidRequest(f"The field {name!r} is {quoted(value)}; give a string or a list of strings.")
    return tuple(values)
