"""Archives of emoji as npm has them, made up for tests, and an npm that hands them out."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

from tuning.data import emoji
from tuning.data.emoji import PACKAGES

Entry = dict[str, Any]

BIRDS, ROLES = [f"1F40{place}" for place in range(8)], [f"1F39{place}" for place in range(8)]
TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")


def entry(codes: str, category: str, subcategory: str, tones: Iterable[str] = (), drawn: bool = True) -> Entry:
    def one(codes: str) -> Entry:
        return {"unified": codes, "image": f"{codes.lower()}.png", "has_img_google": drawn, "has_img_twitter": True}

    variants = {tone: one(f"{codes}-{tone}") for tone in tones}
    return {**one(codes), "category": category, "subcategory": subcategory, "skin_variations": variants}


def entries() -> list[Entry]:
    birds = [entry(code, "Animals & Nature", "animal-bird") for code in BIRDS]
    bugs = [entry(f"1F41{place}", "Animals & Nature", "animal-bug") for place in range(4)]
    for kind in ("animal-mammal", "animal-marine", "plant-flower", "plant-other"):
        bugs += [entry(f"1F5{len(bugs):02X}-{place}", "Animals & Nature", kind) for place in range(4)]
    foreign = entry("1F49F", "Animals & Nature", "animal-bird", drawn=False)
    cooks = [
        entry(f"{who}-200D-{role}", "People & Body", "person-role", TONES)
        for role in ROLES
        for who in ("1F468", "1F469", "1F9D1")
    ]
    return [*birds, *bugs, foreign, *cooks]


def pictures(listed: Sequence[Entry]) -> dict[str, bytes]:
    """A black square in a transparent picture, whose transparent parts are red underneath, as a file for each entry and variant."""
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (16, 16, 48, 48))
    content = io.BytesIO()
    image.save(content, "PNG")
    return {one["image"]: content.getvalue() for each in listed for one in (each, *each["skin_variations"].values())}


def archive(vendor: str, more: Sequence[Entry] = ()) -> bytes:
    listed = [*entries(), *more]
    files = {f"package/img/{vendor}/64/{name}": content for name, content in pictures(listed).items()}
    files |= {f"package/img/{vendor}/sheets/64.png": b"large", "package/emoji.json": json.dumps(listed).encode()}
    files |= {"package/LICENSE": b"MIT", "package/README.md": b"whose pictures these are", "package/../../out.png": b"no"}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def make_known(monkeypatch: pytest.MonkeyPatch, more: Sequence[Entry] = ()) -> dict[str, bytes]:
    """Return made-up archives of both vendors, which are known by their hashes from now on. more: entries beside the usual ones."""
    made = {vendor: archive(vendor, more) for vendor in PACKAGES}
    hashes = {vendor: base64.b64encode(hashlib.sha512(content).digest()).decode() for vendor, content in made.items()}
    known = {vendor: replace(package, integrity=hashes[vendor]) for vendor, package in PACKAGES.items()}
    monkeypatch.setattr(emoji, "PACKAGES", MappingProxyType(known))
    return made


def use_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `npm` be a script in a shell."""
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
