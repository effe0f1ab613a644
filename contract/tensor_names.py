"""What clients may call the tensors of a task besides their names in the repository: as the network's own file calls them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Names = Mapping[str, tuple[str, ...]]  # by the name in the repository; the first is what metadata says


def original_names(tensors: Sequence[str], originals: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of inputs, or of outputs, of which the network's file calls each of `tensors` as `originals` has it.

    Where one of them is what another tensor is called in the repository, nobody could tell what is meant, and there are none.
    """
    others = {name: original for name, original in zip(tensors, originals, strict=True) if name != original}
    if not others or not set(others.values()).isdisjoint(tensors):
        return {}
    return {name: (original,) for name, original in others.items()}


def succeeding(names: Names, new: Names, tensors: Sequence[str], others: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the names of a version that comes after one: what metadata says stays, and what each is called may be said.

    names, new: of the version until now, and of what comes. tensors: that both have. others: per kind (inputs, outputs) all that what
    comes has.
    """
    merged = {name: (*(names.get(name) or (name,)), *new.get(name, ())) for name in tensors}
    merged = {**new, **merged}
    kept: dict[str, tuple[str, ...]] = {}
    for kind in others:
        taken = {name: name for name in kind}
        for name in kind:
            for one in names.get(name, ()) if name in tensors else ():
                taken.setdefault(one, name)
        for name in kind:
            called = dict.fromkeys(merged.get(name, ()))
            kept[name] = tuple(one for one in called if taken.setdefault(one, name) == name)
    return {name: called for name, called in kept.items() if called and called != (name,)}


def names_to_json(names: Names) -> str:
    """Return names as JSON, "" for none."""
    return json.dumps({name: list(called) for name, called in names.items()}, sort_keys=True) if names else ""


def names_from_json(text: str) -> dict[str, tuple[str, ...]]:
    """Return what `names_to_json` wrote. Raises ValueError."""
    try:
        return {str(name): tuple(map(str, called)) for name, called in json.loads(text or "{}").items() if called}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"names of tensors are {text!r}") from error
