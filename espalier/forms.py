"""Several images as forms that a server takes: split by its limits, and its sentences with the files' names."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espalier.image_files import read_image_file, with_folders

_FILES, _BYTES = 32, 48 * 1024 * 1024  # of a form; a server takes more
NamedFile = tuple[str, bytes]


def named_files(images: Iterable[bytes | str | Path]) -> Iterator[NamedFile]:
    """Yield the name and the bytes of each image, with the files of a folder in place of it. Raises NotAnImage."""
    for number, image in enumerate(images, 1):
        if isinstance(image, bytes):
            yield f"image {number}", image
        else:
            yield from ((str(file), read_image_file(file)) for file in with_folders([image]))


def in_forms(files: Iterable[NamedFile]) -> Iterator[list[NamedFile]]:
    """Yield `files` in lists that a form may hold; one at a time is in memory."""
    form: list[NamedFile] = []
    for file in files:
        if form and (len(form) == _FILES or sum(len(data) for _, data in form) + len(file[1]) > _BYTES):
            yield form
            form = []
        form.append(file)
    if form:
        yield form


def written_form(files: Sequence[NamedFile]) -> tuple[bytes, str]:
    """Return the body of a form with `files`, and its Content-Type."""
    boundary = secrets.token_hex(16)
    parts = []
    for name, data in files:
        shown = "".join("_" if letter in '"\\\r\n' or not letter.isprintable() else letter for letter in name)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{shown}"\r\n\r\n'
        parts += [head.encode(), data, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
