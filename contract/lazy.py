"""Public lists of packages whose modules are loaded when a name is first asked for: a list costs nobody torch or a web framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def public(package: str, modules: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], object]]:
    """Return `__all__` and `__getattr__` (PEP 562) of `package`, whose public names are defined in its `modules`.

    modules: names by module, relative to the package. A name is kept in the package once it has been asked for.
    """
    places = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(places), find
