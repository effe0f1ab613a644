"""The kinds of tasks: their names and parameters."""

from __future__ import annotations

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "kind": ["Kind", "KindDoesNotFit"],
        "registry": ["AnyKind", "KINDS", "assumed_kind", "kind_from_json", "kind_to_json", "parse_kind"],
    },
)
