"""All limits of a server that are options, and how one is given another value: NAME=VALUE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from serving.errors import InvalidLimit
from serving.images.decode import ImageLimits
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.message_limits import MessageLimits
from serving.text.limits import TextLimits

# Of images: what a limit is called, and the fields of ImageLimits that it sets, with how many times its value; a form may have twice as
# much as an image.
_IMAGES = {
    "image_bytes": {"max_bytes": 1, "max_total_bytes": 2},
    "image_pixels": {"max_pixels": 1, "max_total_pixels": 2},
    "files": {"max_files": 1},
    "scans": {"max_scans": 1},
    "sections": {"max_sections": 1},
    "waiting_pixels": {"max_waiting_pixels": 1},
}
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ANY = 2**62
_MOST = {"image_pixels": 89_000_000}  # Pillow takes no more


@dataclass(frozen=True)
class Limits:
    """http: of connections over HTTP. messages: of what a request holds, and of gRPC. images, texts: of those sent to be classified."""

    http: HttpLimits = field(default_factory=HttpLimits)
    messages: MessageLimits = field(default_factory=MessageLimits)
    images: ImageLimits = field(default_factory=ImageLimits)
    texts: TextLimits = field(default_factory=TextLimits)


def names() -> list[str]:
    """Return what limits are called."""
    return [*_kinds(HttpLimits()), *_kinds(MessageLimits()), *_IMAGES, *_kinds(TextLimits())]


def changed_limits(settings: Iterable[str]) -> Limits:
    """Return the limits with those that NAME=VALUE gives another value. Raises InvalidLimit."""
    usual = Limits()
    http, messages, images, texts = usual.http, usual.messages, usual.images, usual.texts
    for setting in settings:
        name, _, text = setting.partition("=")
        if name in _kinds(http):
            http = replace(http, **{name: _number(setting, name, text, _kinds(http)[name])})
        elif name in _kinds(messages):
            messages = replace(messages, **{name: _number(setting, name, text, _kinds(messages)[name])})
        elif name in _kinds(texts):
            texts = replace(texts, **{name: _number(setting, name, text, _kinds(texts)[name])})
        elif name in _IMAGES:
            number = _number(setting, name, text, int)
            images = replace(images, **{key: times * number for key, times in _IMAGES[name].items()})
        else:
            raise InvalidLimit(setting, f"NAME=VALUE, with one of the names {', '.join(names())}")
    return Limits(http, messages, images, texts)


def _kinds(limits: Any) -> dict[str, type]:
    return {entry.name: type(getattr(limits, entry.name)) for entry in fields(limits)}


def _number(setting: str, name: str, text: str, kind: type) -> Any:
    times = 1
    for unit, size in _UNITS.items() if name.endswith("_bytes") else ():
        if text.endswith(unit):
            text, times = text.removesuffix(unit), size
    try:
        number = kind(text) * times
    except ValueError:
        what = "seconds" if kind is float else "bytes, such as 65536 or 8MiB" if name.endswith("_bytes") else "a whole number"
        raise InvalidLimit(setting, f"{name}= and {what}") from None
    most = _MOST.get(name, _ANY)
    if not 0 < number <= most:
        raise InvalidLimit(setting, f"{name}= and a number above 0" + ("" if most == _ANY else f", at most {most}"))
    return number
