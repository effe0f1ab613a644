"""What is in a folder of images: the images, the folders, and what is left out, each file with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from tuning.data.left_out import LeftOut

_HIDDEN = "as hidden, or of the system"
_LINKS = "as links to nothing, or to folders that are in the data already"
_CLOSED = "as folders that cannot be opened"
_SYSTEM = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
# Formats that Pillow opens, but which are programs or containers of other things than pictures.
_NO_PICTURES = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
_ALSO = frozenset({".mpo"})  # Pillow opens it, but knows its suffix for writing only


@dataclass(frozen=True)
class FolderContents:
    """images, folders: paths relative to the folder, sorted; neither hidden ones nor what is in them. left_out: the other files."""

    images: tuple[PurePath, ...]
    folders: tuple[PurePath, ...]
    left_out: LeftOut


@cache
def image_suffixes() -> frozenset[str]:
    """Return how the names of files end that Pillow, as it is installed here, opens as pictures; in small letters."""
    known = Image.registered_extensions()  # which loads all of Pillow's readers
    return _ALSO | {suffix for suffix, form in known.items() if form in Image.OPEN and form not in _NO_PICTURES}


def scan(folder: Path) -> FolderContents:
    """Return what is in `folder`, folders inside and linked ones included. Files that are no images by their names are left out."""
    walk = _Walk(folder)
    walk.enter(PurePath())
    return walk.contents()


class _Walk:
    def __init__(self, folder: Path) -> None:
        self._folder, self._real = folder, Path(os.path.realpath(folder))
        self._followed: set[Path] = set()
        self._images: list[PurePath] = []
        self._folders: list[PurePath] = []
        self._others: list[PurePath] = []
        self._left_out: defaultdict[str, list[str]] = defaultdict(list)

    def enter(self, place: PurePath) -> None:
        """Take what is in the folder at `place`."""
        try:
            entries = sorted(os.scandir(self._folder / place), key=lambda entry: entry.name)
        except OSError:
            self._leave(_CLOSED, place)
            return
        for entry in entries:
            self._take(entry, place / entry.name)

    def contents(self) -> FolderContents:
        """Return what was found."""
        left_out = dict(self._left_out)
        if self._others:
            kinds = ", ".join(sorted({file.suffix.lower() or "no suffix" for file in self._others})[:5])
            left_out[f"as of no kind of picture that can be read here ({kinds})"] = [file.as_posix() for file in self._others]
        return FolderContents(
            tuple(sorted(self._images)),
            tuple(sorted(self._folders)),
            {reason: tuple(names) for reason, names in left_out.items()},
        )

    def _take(self, entry: os.DirEntry[str], place: PurePath) -> None:
        if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
            for file in _files_under(entry, place):
                self._leave(_HIDDEN, file)
        elif entry.is_dir():
            if entry.is_symlink() and not self._may_follow(Path(entry.path), place):
                self._leave(_LINKS, place)
                return
            self._folders.append(place)
            self.enter(place)
        elif not entry.is_file():
            self._leave(_LINKS, place)
        elif place.suffix.lower() in image_suffixes():
            self._images.append(place)
        else:
            self._others.append(place)

    def _may_follow(self, link: Path, place: PurePath) -> bool:
        """Return whether the linked folder is none that `link` is in and, below the top, none that is in the data without it."""
        target, around = Path(os.path.realpath(link)), Path(os.path.realpath(link.parent))
        if self._real.is_relative_to(target) or around.is_relative_to(target):
            return False
        if len(place.parts) > 1 and (target in self._followed or target.is_relative_to(self._real)):
            return False
        self._followed.add(target)
        return True

    def _leave(self, reason: str, place: PurePath) -> None:
        self._left_out[reason].append(place.as_posix())


def _files_under(entry: os.DirEntry[str], place: PurePath) -> Iterator[PurePath]:
    """Yield `place` if it is a file, else the files in it."""
    if not entry.is_dir(follow_symlinks=False):
        yield place
        return
    for root, _, files in os.walk(entry.path):
        yield from (place / Path(root, file).relative_to(entry.path) for file in sorted(files))
