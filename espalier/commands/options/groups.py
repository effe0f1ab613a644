"""Options that go together, as one parameter of a command: a frozen dataclass whose fields are the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def ungroup(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` as Typer understands it: the fields of a dataclass stand, as options, where the dataclass stood.

    A subclass changes an option in its place; with `field(init=False)` it leaves it out. Raises ValueError for a name used twice.
    """
    groups: dict[str, type] = {}
    options: list[Parameter] = []
    for parameter in _parameters(command):
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            options += _parameters(kind)
        else:
            options.append(parameter)

    @wraps(command)
    def ungrouped(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{option.name: given.pop(option.name) for option in _parameters(group)})
        command(**given)

    ungrouped.__signature__ = Signature(options)  # type: ignore[attr-defined]  # inspect.signature takes it from there
    return ungrouped


def _parameters(callable_: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters by keyword, with annotations that need no module to be understood in."""
    hints = get_type_hints(callable_, include_extras=True)
    found = signature(callable_).parameters.values()
    return [parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]) for parameter in found]
