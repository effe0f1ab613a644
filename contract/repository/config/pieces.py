"""Parses the text of a configuration field by field: what many configurations have in common is parsed once.

protobuf's reader of text is written in Python, and takes a millisecond for a configuration. Of a thousand tasks nearly all have the same
fields. Each field is given to that same reader, alone; text that is not one field after the other, each beginning a line, as a whole.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, MutableSequence
from functools import lru_cache
from typing import Any

from google.protobuf import text_format

from contract.repository.config.tensors import ModelConfig

_BEGINS = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")
_KNOWN, _LONGEST = 1024, 4096  # fields that are kept, and characters of one: a longer one is of one configuration alone
_GROUPS = {  # of which a message has one at most; "" where it may have several
    name: ""
    if isinstance(getattr(ModelConfig(), name), MutableSequence | MutableMapping)
    else str((field.containing_oneof or field).name)
    for name, field in ModelConfig.DESCRIPTOR.fields_by_name.items()
}


def parse(text: str) -> Any:
    """Return the ModelConfig that `text` describes. Raises text_format.ParseError."""
    pieces = _BEGINS.split(text)
    fields = [_field(piece) if len(piece) <= _LONGEST else _parse_field(piece) for piece in pieces if piece.strip()]
    groups = [_GROUPS[name] for name, _ in filter(None, fields) if _GROUPS[name]]
    if None in fields or len(set(groups)) < len(groups):
        return text_format.Parse(text, ModelConfig())  # what is wrong, if anything is, that reader says best
    config = ModelConfig()
    for _, field in filter(None, fields):
        config.MergeFrom(field)
    return config


@lru_cache(_KNOWN)
def _field(piece: str) -> tuple[str, Any] | None:
    return _parse_field(piece)


def _parse_field(piece: str) -> tuple[str, Any] | None:
    """Return the name of the field that `piece` describes, and a configuration with it, not to be changed; None if it is not one alone."""
    name, config = _NAME.match(piece), ModelConfig()
    try:
        text_format.Parse(piece, config)
    except text_format.ParseError:
        return None
    found = [field.name for field, _ in config.ListFields()]
    return (found[0], config) if name is not None and found == [name[0]] else None
