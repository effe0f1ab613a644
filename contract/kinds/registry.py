"""All kinds, and how they are written: as JSON in a repository, and in short by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from contract.kinds.boxes import Boxes
from contract.kinds.classes import Classes
from contract.kinds.embedding import Embedding
from contract.kinds.kind import Kind, Shapes
from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.kinds.tensor import Tensor
from contract.kinds.tokens import Tokens
from contract.kinds.values import Values

AnyKind = Classes | Labels | Values | Embedding | Mask | Boxes | Tokens | Tensor
KINDS: Mapping[str, type[Kind]] = {kind.word(): kind for kind in get_args(AnyKind)}


def kind_to_json(kind: Kind) -> str:
    """Return `kind` as `kind_from_json` reads it; equal kinds, equal text."""
    return msgspec.json.encode(kind, order="sorted").decode()


def kind_from_json(text: str) -> Kind:
    """Return what `kind_to_json` wrote. Raises ValueError with a clause that says what is wrong with `text`."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{text!r} is no JSON object") from error
    return _kind(fields, strict=True)


def parse_kind(text: str) -> Kind:
    """Return the kind that somebody wrote as a word ("mask"), with parameters ("labels:thresholds=0.5+0.3"), or as JSON.

    Parameters are separated by commas, the entries of one by "+". Raises ValueError with a clause that says what is wrong.
    """
    if text.lstrip().startswith("{"):
        return kind_from_json(text)
    word, _, rest = text.partition(":")
    fields: dict[str, Any] = {"kind": word}
    for pair in filter(None, rest.split(",")):
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"{pair!r} is not of the form PARAMETER=VALUE")
        if name in fields:
            raise ValueError(f"the parameter {name!r} is given twice")
        parts = [f"0{part}" if part.startswith(".") else part for part in value.split("+")]  # msgspec takes no number like .5
        fields[name] = parts if _is_list(word, name) else "+".join(parts)
    return _kind(fields, strict=False)


def assumed_kind(outputs: Shapes) -> Kind:
    """Return what a task with these outputs is taken for where nobody says it: one vector is classes, all else tensors."""
    return Classes() if [len(shape) for shape in outputs.values()] == [1] else Tensor()


def _kind(fields: Mapping[str, Any], *, strict: bool) -> Kind:
    word = fields.get("kind")
    kind = KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise ValueError(f"there is no kind {word!r}; choose one of: {', '.join(KINDS)}")
    known = _parameters_of(kind)
    unknown = [name for name in fields if name not in (*known, "kind")]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"the kind {word!r} has no parameter {unknown[0]!r}; {has}")
    try:
        return msgspec.convert(fields, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise ValueError(_clause(error, kind)) from error


def _parameters_of(kind: type[Kind]) -> Sequence[str]:
    """Return the names of the parameters of a kind."""
    return kind.__struct_fields__


def _is_list(word: str, name: str) -> bool:
    kind = KINDS.get(word)
    default = next((field.default for field in msgspec.structs.fields(kind) if field.name == name), None) if kind else None
    return isinstance(default, tuple)


def _clause(error: msgspec.ValidationError, kind: type[Kind]) -> str:
    """Return what msgspec says, with the parameter in front in place of the path at the end, and what it may be."""
    words, _, path = str(error).replace("`float | null`", "`float`").partition(" - at `$")
    name = path.strip("`.").partition("[")[0]
    if not name:
        return words
    choices = get_args(next(field.type for field in msgspec.structs.fields(kind) if field.name == name))
    may_be = f"; it may be {', '.join(choices)}" if words.startswith("Invalid enum") else ""
    return f"{name}: {words[0].lower()}{words[1:]}{may_be}"
