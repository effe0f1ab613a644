"""Reads configurations as protobuf's own writer lays them out: one field a line. That takes a fraction of what its parser in Python does.

With a thousand tasks most of the time in which a repository is read went there. Whatever is laid out in another way, or is not
right, is left to that parser, which also says what is wrong: `read_laid_out` returns None for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

_BLOCK = re.compile(r" *([a-z][a-z0-9_]*) \{")
_VALUE = re.compile(r' *([a-z][a-z0-9_]*): (?:"((?:[^"\\]|\\.)*)"|(0|-?[1-9][0-9]{0,8})|([A-Za-z][A-Za-z0-9_]*))')
_NUMBERS = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
_UNSIGNED = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
_LENGTH_DELIMITED = 2


class _OtherLayout(Exception):
    """The text is for protobuf's own parser."""


def read_laid_out(text: str, message: Any) -> bool:
    """Fill `message`, which is empty, with what `text` says. Return False, and leave it empty, where protobuf's parser has to."""
    try:
        lines = iter(text.removesuffix("\n").split("\n") if text else ())
        found = _fields(message.DESCRIPTOR, lines, is_inner=False)
        message.ParseFromString(found)
    except (_OtherLayout, DecodeError, UnicodeError):
        message.Clear()
        return False
    return True


def _fields(kind: Any, lines: Iterator[str], is_inner: bool) -> bytes:
    """Return what `lines` say of a message of that kind, as protobuf encodes it; inside of another one, until it ends."""
    parts: list[bytes] = []
    seen: set[str] = set()
    for line in lines:
        if is_inner and line.lstrip(" ") == "}":
            return b"".join(parts)
        block = _BLOCK.fullmatch(line)
        once, tag, encoded = _block(kind, block[1]) if block else _value(kind, line)
        if block:
            inner = _fields(kind.fields_by_name[block[1]].message_type, lines, is_inner=True)
            encoded = _varint(len(inner)) + inner
        if once in seen:
            raise _OtherLayout
        if once:
            seen.add(once)
        parts += tag, encoded
    if is_inner:
        raise _OtherLayout
    return b"".join(parts)


@lru_cache(256)
def _block(kind: Any, name: str) -> tuple[str, bytes, bytes]:
    """Return under which name the field may come once ("": as often as it likes), and its tag; what it holds follows."""
    field = kind.fields_by_name.get(name)
    if field is None or field.type != FieldDescriptor.TYPE_MESSAGE:
        raise _OtherLayout
    return _once(field), _varint(field.number << 3 | _LENGTH_DELIMITED), b""


@lru_cache(4096)
def _value(kind: Any, line: str) -> tuple[str, bytes, bytes]:
    """Return the same for a field that is a text, a number or a word, and what the line says of it."""
    found = _VALUE.fullmatch(line)
    field = kind.fields_by_name.get(found[1]) if found else None
    if found is None or field is None:
        raise _OtherLayout
    _, text, number, word = found.groups()
    if text is not None and field.type == FieldDescriptor.TYPE_STRING:
        content = text_encoding.CUnescape(text) if "\\" in text else text.encode()
        content.decode()  # protobuf would refuse it
        return _once(field), _varint(field.number << 3 | _LENGTH_DELIMITED), _varint(len(content)) + content
    return _once(field), _varint(field.number << 3), _varint(_number(field, number, word) % 2**64)


def _number(field: Any, number: str | None, word: str | None) -> int:
    if number is not None and field.type in _NUMBERS and not (number.startswith("-") and field.type in _UNSIGNED):
        return int(number)
    if word in ("true", "false") and field.type == FieldDescriptor.TYPE_BOOL:
        return int(word == "true")
    if word is not None and field.type == FieldDescriptor.TYPE_ENUM and word in field.enum_type.values_by_name:
        return int(field.enum_type.values_by_name[word].number)
    raise _OtherLayout


def _once(field: Any) -> str:
    """Return what may be said once: a field, or one of several of which a message has one; "" for one that is repeated."""
    if field.is_repeated:
        return ""
    return str(field.containing_oneof.full_name if field.containing_oneof is not None else field.name)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
