"""Typefaces to draw letters with: what Pillow and matplotlib bring along, then what the system has."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from contract.user_folders import home_folder

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_TYPEFACES = 6

# Matplotlib's, one file per family: all with the letters A to Z, and told apart by eye.
_BUNDLED = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf", "cmtt10.ttf")
_UPRIGHT = frozenset({"book", "regular", "roman", "normal", "medium"})
_SUFFIXES = frozenset({".otf", ".ttf"})
_PROBE_SIZE = 32


@dataclass(frozen=True)
class Typeface:
    """A family of letters. file None: the one that is part of Pillow. digest: of the shapes of its letters."""

    family: str
    file: Path | None
    digest: str

    def font(self, size: float) -> ImageFont.FreeTypeFont:
        """Return the font at `size` pixels per em."""
        return _load(self.file, size)


def find_typefaces(folders: Sequence[Path] | None = None) -> tuple[Typeface, ...]:
    """Return up to 6 typefaces of different families with all letters A to Z, always in the same order on the same machine.

    Pillow's own comes first, then matplotlib's where it is installed, then the upright ones in `folders` (the system's font
    folders by default) by file name: with matplotlib the choice is the same everywhere.
    """
    found: dict[str, Typeface] = {}
    for file in _candidates(_system_folders() if folders is None else folders):
        typeface = _probe(file)
        if typeface is not None:
            found.setdefault(typeface.family, typeface)
        if len(found) == _MOST_TYPEFACES:
            break
    return tuple(found.values())


def _candidates(folders: Sequence[Path]) -> Iterator[Path | None]:
    yield None
    yield from _bundled_files()
    for folder in folders:
        yield from sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)


def _bundled_files() -> list[Path]:
    spec = importlib.util.find_spec("matplotlib")  # does not import it
    places = spec.submodule_search_locations if spec else None
    return [Path(place) / "mpl-data" / "fonts" / "ttf" / name for place in places or () for name in _BUNDLED]


def _system_folders() -> list[Path]:
    home, windows = home_folder(), os.environ.get("WINDIR")
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("/System/Library/Fonts"), Path("/Library/Fonts")]
    if home is not None:
        folders += [home / ".local/share/fonts", home / ".fonts", home / "Library/Fonts"]
    return folders + ([Path(windows) / "Fonts"] if windows else [])


def _probe(file: Path | None) -> Typeface | None:
    """Return the typeface in `file`; None when it cannot be read, is slanted or bold, or lacks letters."""
    try:
        font = _load(file, _PROBE_SIZE)
        shapes = [bytes(font.getmask(letter)) for letter in LETTERS]
        missing = bytes(font.getmask("\uffff"))  # what is drawn for a character that the font has not
    except (OSError, ImportError, ValueError):
        return None
    family, style = font.getname()
    if family is None or (style or "regular").lower() not in _UPRIGHT or missing in shapes or len(set(shapes)) < len(LETTERS):
        return None
    return Typeface(family, file, hashlib.sha256(b"".join(shapes)).hexdigest())


def _load(file: Path | None, size: float) -> ImageFont.FreeTypeFont:
    if file is not None:
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OSError("Pillow was built without FreeType")
    return font
