"""Amounts of memory, and lengths, on the command line."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?", re.IGNORECASE)


def parse_limit(text: str) -> int:
    """Do as `parse_size`, and take 0, which stands for no limit."""
    return 0 if text.strip() == "0" else parse_size(text)


def parse_size(text: str) -> int:
    """Return the bytes of "500M", "1.5GB", "2GiB" or a plain number. Raises BadParameter for anything else, and for zero."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is no amount of memory, such as 500M, 1.5GB or 2GiB.")
    return size


def parse_lengths(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers of "16,32,64", of this option. Raises BadParameter for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of lengths, such as 16,32,64.", param_hint=option)
    return tuple(map(int, parts))


def parse_named_sizes(text: str, option: str) -> dict[str, int]:
    """Return the numbers of "128", for every free size, or "length=128,height=64", by name; "" is the name of every other.

    Raises BadParameter for anything else.
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.rpartition("=")
        if not (number.strip().isascii() and number.strip().isdigit() and int(number)):
            raise typer.BadParameter(f"{text!r} is no size, such as 128 or length=128,height=64.", param_hint=option)
        found[name.strip()] = int(number)
    return found
