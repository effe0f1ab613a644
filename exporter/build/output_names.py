"""What clients call the outputs of a task: pure functions of its name and of what the network calls them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from exporter.errors import SameOutputNames

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")


def output_names(task: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs that the network calls `names`: one is named like the task, several `task.output`.

    Characters that a name may not have become "_", or, where two would get the same name by that, their codes: "a/b" is "a_2f_b" beside
    "a:b". So a name depends on no order. Names that begin with `task.`, as those read back from a repository do, stay.
    Raises SameOutputNames.
    """
    if len(names) == 1:
        return (task,)
    own = [name.removeprefix(f"{task}.") for name in names]
    plain = [_OTHER.sub("_", name) for name in own]
    counts = Counter(plain)
    made = [
        f"{task}.{short if counts[short] == 1 or short == name else _OTHER.sub(_code, name)}"
        for name, short in zip(own, plain, strict=True)
    ]
    for name, count in Counter(made).items():
        if count > 1:
            raise SameOutputNames(task, [given for given, found in zip(names, made, strict=True) if found == name], name)
    return tuple(made)


def explain_output_names(task: str, names: Sequence[str]) -> str | None:
    """Return which of several outputs got other names than the network has for them, to be read after the task's; None: none did."""
    called = zip(names, output_names(task, names), strict=True)
    others = [f"{given!r} as {found!r}" for given, found in called if found.removeprefix(f"{task}.") != given and found != given]
    return f"gives {' and '.join(others)}." if others and len(names) > 1 else None


def _code(match: re.Match[str]) -> str:
    return f"_{ord(match[0]):x}_"
