"""Names segments: what is there keeps its name, and no two segments that compute different things have the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from exporter.sharing.segments import Key


def segment_name(role: str, first: int, last: int, digest: str) -> str:
    """Return the name of a segment by what it is for, where it is and what it computes."""
    return f"{role}-{first:02d}-{last:02d}-{digest[:8]}"


def choose_names(wanted: Mapping[Key, str], contents: Mapping[Key, str], there: Mapping[str, str]) -> dict[Key, str]:
    """Return the name of each segment. wanted: what it would be called if it was alone. there: names that are given, with contents.

    A segment that is there goes by its name: a copy that is called like one is that one, others are found by their content, one for
    one. Where two that differ would have one name (they have the same weights, but take other shapes), the name tells that, too.
    """
    names = {key: key.copy for key in wanted if there.get(key.copy) == contents[key]}
    names |= {key: name for key, name in wanted.items() if key not in names and there.get(name) == contents[key]}
    free: dict[str, list[str]] = defaultdict(list)
    for name in sorted(there.keys() - names.values(), reverse=True):
        free[there[name]].append(name)
    for key in sorted(wanted.keys() - names.keys(), key=lambda key: (wanted[key], key)):
        names[key] = free[contents[key]].pop() if free[contents[key]] else _new_name(key, wanted, contents, there)
    return names


def _new_name(key: Key, wanted: Mapping[Key, str], contents: Mapping[Key, str], there: Mapping[str, str]) -> str:
    name, content = wanted[key], contents[key]
    others = {contents[other] for other, taken in wanted.items() if taken == name} | {there.get(name, content)}
    if others == {content}:
        return name
    return f"{name.rpartition('-')[0]}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
