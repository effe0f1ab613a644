"""Options that say something by name, as NAME=WHAT."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import typer


def split_pairs(given: Sequence[str], form: str, option: str, tasks: Collection[str] | None = None) -> dict[str, str]:
    """Return what is said by name. form: as people read it, such as "TASK=KIND". tasks: the names there are; None: any.

    Raises typer.BadParameter for another form, an unknown name, a name that is given twice.
    """
    said: dict[str, str] = {}
    for text in given:
        name, separator, what = text.partition("=")
        if not separator or not name or not what:
            raise typer.BadParameter(f"{text!r} is not of the form {form}.", param_hint=option)
        if tasks is not None and name not in tasks:
            raise typer.BadParameter(f"{name!r} is none of the tasks that come: {', '.join(tasks)}.", param_hint=option)
        if name in said:
            raise typer.BadParameter(f"the name {name!r} is given twice.", param_hint=option)
        said[name] = what
    return said
