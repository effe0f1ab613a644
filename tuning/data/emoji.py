"""Emoji as pictures to learn from: real, in colour, free, by two designers, and to be had by name from npm.

`emoji-datasource-google` and `-twitter` hold 3,786 pictures of 64 pixels each, and say of each what it is. They become folders of
classes with a fixed split, once. Variants of one picture (skin tones, man and woman, direction, members of a family) are on one side of the
split, the same side in every task and for both designers: it hangs on a hash of what the variants have in common. What is transparent
becomes white.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.labelled import Draw, TaskData, folder_task
from tuning.data.packages import NpmPackage, make_folder
from tuning.errors import BadData

_VERSION = "16.0.0"
PACKAGES: Mapping[str, NpmPackage] = MappingProxyType(
    {
        "google": NpmPackage(
            "emoji-datasource-google",
            _VERSION,
            "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
            74,
        ),
        "twitter": NpmPackage(
            "emoji-datasource-twitter",
            _VERSION,
            "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
            62,
        ),
    }
)
_TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
_RECIPE = 1  # raised with every change of what the folders hold
_TESTED = 0.25  # of the groups of variants in a subcategory
_LICENCES = ("LICENSE", "README.md")  # of the package: the latter names the licences of the pictures

# What variants differ in: skin tones, how a sign is to be drawn, joints, female, male, to the right.
_MODIFIERS = frozenset({*_TONES, "FE0F", "200D", "2640", "2642", "27A1"})
_PERSON, _CHILD, _HAND, _HEART, _KISS = "1F9D1", "1F9D2", "1F91D", "2764", "1F48B"
_ALIKE = {  # single signs that others are put together from, or that have a twin
    **dict.fromkeys(("1F468", "1F469"), (_PERSON,)),
    **dict.fromkeys(("1F466", "1F467"), (_CHILD,)),
    **dict.fromkeys(("1F474", "1F475"), ("1F9D3",)),
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), (_PERSON, _HAND, _PERSON)),
    "1F48F": (_PERSON, _HEART, _KISS, _PERSON),
    "1F491": (_PERSON, _HEART, _PERSON),
    **dict.fromkeys(("1F478", "1F934"), ("1FAC5",)),  # princess and prince: person with a crown
    "1F936": ("1F385",),  # Mrs. Claus
    "1F57A": ("1F483",),  # dancers
    **dict.fromkeys(("1F930", "1FAC3"), ("1FAC4",)),  # pregnant
}


@dataclass(frozen=True)
class Emoji:
    """A picture. file: its name. side: of the split, "train" or "test". tone: of the skin, "" where that is not said.

    plain: no variant with a skin tone. tones: whether there are such.
    """

    file: str
    category: str
    subcategory: str
    side: str
    tone: str = ""
    plain: bool = True
    tones: bool = False


def _category(emoji: Emoji) -> str:
    return _slug(emoji.category) if emoji.plain and emoji.category != "Component" else ""


def _subcategory(category: str, *classes: str) -> Callable[[Emoji], str]:
    def label(emoji: Emoji) -> str:
        name = _slug(emoji.subcategory)
        return name if emoji.plain and emoji.category == category and name in classes else ""

    return label


def _tone(emoji: Emoji) -> str:
    return emoji.tone or ("none" if emoji.tones and emoji.plain else "")


# The class of a picture, "" to leave it out.
EMOJI_TASKS: Mapping[str, Callable[[Emoji], str]] = MappingProxyType(
    {
        "category": _category,
        "animals": _subcategory(
            "Animals & Nature", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "plant-flower", "plant-other"
        ),
        "food": _subcategory(
            "Food & Drink", "drink", "food-asian", "food-fruit", "food-prepared", "food-sweet", "food-vegetable"
        ),
        "places": _subcategory("Travel & Places", "place-building", "sky-weather", "time", "transport-air", "transport-ground"),
        "symbols": _subcategory("Symbols", "alphanum", "arrow", "av-symbol", "geometric", "keycap", "other-symbol"),
        "skin": _tone,
    }
)


def emoji_task(
    name: str, preprocessing: Preprocessing, folder: Path, *, download: bool = False, draw: Draw | None = None
) -> TaskData:
    """Return the data of "VENDOR/TASK" (PACKAGES, EMOJI_TASKS), or of "VENDOR", which is its categories.

    folder: where the folders of classes are, or are made from the archive that lies there or is fetched with `download`.
    Raises NotDownloaded; BadData: an unknown name, no npm, another archive, a folder that cannot be written.
    """
    vendor, _, task = name.partition("/")
    task = task or "category"
    if vendor not in PACKAGES or task not in EMOJI_TASKS:
        raise BadData(
            f"Unknown emoji data {name!r}; it is VENDOR or VENDOR/TASK, of {', '.join(PACKAGES)} and {', '.join(EMOJI_TASKS)}."
        )
    place = _prepare(vendor, folder, download=download) / task
    draw = draw or Draw()
    data = folder_task(place, preprocessing, seed=draw.seed, train_images=draw.train_images, test_images=draw.test_images)
    return replace(data, name=f"{vendor}/{task}")


def _prepare(vendor: str, folder: Path, *, download: bool = False) -> Path:
    """Return the folder that holds a folder of each task of `vendor`, TASK/train|test/CLASS/x.png; make it where it is not there."""
    package = PACKAGES[vendor]
    made = folder / f"{vendor}-{package.version}.{_RECIPE}"
    if made.is_dir():
        return made
    files = _read_archive(package.read(f"emoji:{vendor}", folder, download), vendor)
    pictures = list_emoji(json.loads(files["emoji.json"]), vendor)
    return make_folder(made, f"emoji:{vendor}", lambda aside: _write(aside, pictures, files))


def list_emoji(entries: Sequence[Mapping[str, Any]], vendor: str) -> Iterator[Emoji]:
    """Yield the pictures that `vendor` has drawn itself, of the entries of emoji.json. (For what is missing the package has another's.)"""
    tested = _tested_groups(entries)
    for entry in entries:
        variants = entry.get("skin_variations", {})
        side = "test" if _group(entry) in tested else "train"
        emoji = Emoji(entry["image"], entry["category"], entry["subcategory"], side, tones=bool(variants))
        if entry[f"has_img_{vendor}"]:
            yield emoji
        for tone, variant in variants.items():
            if variant[f"has_img_{vendor}"]:
                yield replace(emoji, file=variant["image"], tone=_TONES.get(tone, ""), plain=False)


def group_of(codes: Iterable[str]) -> str:
    """Return what variants of one picture have in common, of its code points in hexadecimal."""
    codes = tuple(codes)
    bare = [code for code in codes if code not in _MODIFIERS] or codes
    return "-".join(part for code in bare for part in _ALIKE.get(code, (code,)))


def _group(entry: Mapping[str, Any]) -> str:
    return group_of(entry["unified"].split("-"))


def _tested_groups(entries: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return a quarter of the groups of each subcategory, those with the lowest hashes. A group is of the subcategory that has it first."""
    first: dict[str, str] = {}
    for entry in entries:
        first.setdefault(_group(entry), entry["subcategory"])
    members: dict[str, list[str]] = {}
    for group, subcategory in first.items():
        members.setdefault(subcategory, []).append(group)
    return frozenset(
        group
        for groups in members.values()
        for group in sorted(groups, key=lambda each: hashlib.sha256(each.encode()).digest())[: round(_TESTED * len(groups))]
    )


def _read_archive(content: bytes, vendor: str) -> dict[str, bytes]:
    """Return the files that are needed, by their names without folders."""
    pictures = f"package/img/{vendor}/64/"
    wanted = {f"package/{name}" for name in ("emoji.json", *_LICENCES)}
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            if member.isfile() and (member.name in wanted or member.name.startswith(pictures)):
                stream = archive.extractfile(member)
                if stream is not None:
                    files[member.name.rpartition("/")[2]] = stream.read()
    return files


def _write(folder: Path, pictures: Iterable[Emoji], files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name in _LICENCES:
        (folder / name).write_bytes(files[name])
    for emoji in pictures:
        places = [folder / task / emoji.side / label for task, label_of in EMOJI_TASKS.items() if (label := label_of(emoji))]
        if places:
            picture = on_white(files[emoji.file])
            for place in places:
                place.mkdir(parents=True, exist_ok=True)
                picture.save(place / emoji.file)


def on_white(content: bytes) -> Image.Image:
    """Return the picture in a file's `content`, white where it is transparent."""
    with Image.open(io.BytesIO(content)) as image:
        drawn = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
