"""Reads fields of a JSON object and says in a sentence what is wrong with one. A field that is null is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.errors import InvalidRequest

_WORDS = {dict: "an object", list: "a list", str: "a string", int: "an integer", bool: "true or false"}


def required(holder: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return `holder[key]`, which must be there and of `kind`."""
    if holder.get(key) is None:
        raise InvalidRequest(f"{where} has no {key!r}.")
    return optional(holder, key, kind, where, None)


def optional(holder: Mapping[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
    """Return `holder[key]`, or `default` where it is missing; JSON's true is no integer."""
    value = holder.get(key)
    if value is None:
        return default
    if type(value) is not kind:
        raise InvalidRequest(f"{where} has a {key!r} that is not {_WORDS[kind]}.")
    return value


def parameters_of(holder: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters of a request or a tensor, none where they are missing."""
    parameters: dict[str, Any] = optional(holder, "parameters", dict, where, {})
    return {name: value for name, value in parameters.items() if value is not None} if parameters else parameters


def decimal(text: str) -> int | None:
    """Return the number that a header's value `text` writes in at most 19 ASCII digits, or None."""
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else None


def objects(holder: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """Return the list of objects `holder[key]`, empty where it is missing."""
    values: list[dict[str, Any]] = optional(holder, key, list, where, [])
    if not all(type(value) is dict for value in values):
        raise InvalidRequest(f"{where} has a {key!r} whose entries are not all objects.")
    return values
