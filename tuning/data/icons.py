"""Icons of cloud services to learn from: hundreds of classes of things in a few styles, in colour, to be had by name from PyPI.

`diagrams` holds some 2,000 icons of about 256 pixels in folders by provider and kind. They become folders of classes with a fixed split,
once. Icons that are alike are on one side of the split, the same side in both tasks: of one provider, by one name in several folders, or
with one picture in 8 by 8 pixels. What is transparent becomes white, and what is then invisible is left out.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.emoji import on_white
from tuning.data.labelled import Draw, TaskData, folder_task
from tuning.data.packages import PipPackage, make_folder
from tuning.errors import BadData

PACKAGE = PipPackage(
    "diagrams",
    "0.25.1",
    "6TLfwJzoC4XnGMfk0XxGyihWesJqoaOfxbpzKA5Hnpuqd7t0EO/2FSUyKUEeVX54H+/sPv9rTU/AkSED8H9fvA==",
    35,
)
_RECIPE = 1  # raised with every change of what the folders hold
_TESTED = 0.25  # of the groups of a provider
_LEAST_CONTRAST = 16  # of 255, between the darkest and the lightest pixel

# Providers with a style of their own; the package's other folders are collections of others' logos.
_PROVIDERS = (
    "alibabacloud",
    "aws",
    "azure",
    "digitalocean",
    "elastic",
    "gcp",
    "ibm",
    "k8s",
    "oci",
    "openstack",
    "outscale",
)
# The class of a kind that several providers have, by what the package calls it.
_KINDS = {
    "analytics": "analytics",
    "compute": "compute",
    "database": "database",
    "databases": "database",
    "iot": "iot",
    "aimachinelearning": "ml",
    "ml": "ml",
    "network": "network",
    "networking": "network",
    "security": "security",
    "identity": "security",
    "storage": "storage",
}


@dataclass(frozen=True, eq=False)
class Icon:
    """An icon of a package: its provider, its kind and its name there, and its picture."""

    provider: str
    kind: str
    name: str
    picture: Image.Image

    @property
    def file(self) -> str:
        """The name of its file in a folder of classes."""
        return f"{self.provider}-{self.kind}-{self.name}.png"

    @property
    def looks(self) -> bytes:
        """Where its picture gets lighter from left to right, in 8 by 8 pixels: equal for what differs in shades or in size alone."""
        grey = np.asarray(self.picture.convert("L").resize((9, 8)), np.int16)
        return (grey[:, 1:] > grey[:, :-1]).tobytes()


# The class of an icon, "" to leave it out.
ICON_TASKS: Mapping[str, Callable[[Icon], str]] = MappingProxyType(
    {"provider": lambda icon: icon.provider, "kind": lambda icon: _KINDS.get(icon.kind, "")}
)


def icon_task(
    name: str, preprocessing: Preprocessing, folder: Path, *, download: bool = False, draw: Draw | None = None
) -> TaskData:
    """Return the data of the task `name` of ICON_TASKS.

    folder: where the folders of classes are, or are made from the archive that lies there or is fetched with `download`.
    Raises NotDownloaded; BadData: an unknown name, no pip, another archive, a folder that cannot be written.
    """
    if name not in ICON_TASKS:
        raise BadData(f"Unknown icon data {name!r}; it is one of {', '.join(ICON_TASKS)}.")
    made = folder / f"{PACKAGE.name}-{PACKAGE.version}.{_RECIPE}"
    if not made.is_dir():
        content = PACKAGE.read(f"icons:{name}", folder, download)
        make_folder(made, f"icons:{name}", lambda aside: _write(aside, content))
    draw = draw or Draw()
    data = folder_task(made / name, preprocessing, seed=draw.seed, train_images=draw.train_images, test_images=draw.test_images)
    return replace(data, name=name)


def groups_of(icons: Sequence[Icon]) -> list[int]:
    """Return the group of each icon: the place of the first that it is like, or that one is like which it is like, and so on."""
    groups, first = list(range(len(icons))), dict[tuple[str, str | bytes], int]()
    for place, icon in enumerate(icons):
        for key in ((icon.provider, icon.name), (icon.provider, icon.looks)):
            one, other = sorted((groups[first.setdefault(key, place)], groups[place]))
            groups = [one if group == other else group for group in groups] if one != other else groups
    return groups


def sides_of(icons: Sequence[Icon], groups: Sequence[int]) -> dict[int, str]:
    """Return the side of the split, "train" or "test", of each group: a quarter of a provider's are tests, by their hashes."""
    members: dict[str, list[int]] = {}
    for group in dict.fromkeys(groups):
        members.setdefault(icons[group].provider, []).append(group)
    tested = {
        group
        for of_one in members.values()
        for group in sorted(of_one, key=lambda each: hashlib.sha256(icons[each].file.encode()).digest())[
            : round(_TESTED * len(of_one))
        ]
    }
    return {group: "test" if group in tested else "train" for group in dict.fromkeys(groups)}


def _read_icons(wheel: zipfile.ZipFile) -> Iterator[Icon]:
    for name in sorted(wheel.namelist()):
        path = PurePosixPath(name)
        if len(path.parts) == 4 and path.parts[0] == "resources" and path.parts[1] in _PROVIDERS and path.suffix == ".png":
            icon = Icon(path.parts[1], path.parts[2], path.stem, on_white(wheel.read(name)))
            if np.ptp(np.asarray(icon.picture.convert("L"))) >= _LEAST_CONTRAST:
                yield icon


def _write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        icons = list(_read_icons(wheel))
        for name in wheel.namelist():
            if PurePosixPath(name).name in ("LICENSE", "METADATA"):
                (folder / PurePosixPath(name).name).write_bytes(wheel.read(name))
    groups = groups_of(icons)
    sides = sides_of(icons, groups)
    for task, label_of in ICON_TASKS.items():
        for icon, group, label in _labelled(icons, groups, label_of):
            place = folder / task / sides[group] / label
            place.mkdir(parents=True, exist_ok=True)
            icon.picture.save(place / icon.file)


def _labelled(icons: Sequence[Icon], groups: Sequence[int], label_of: Callable[[Icon], str]) -> Iterator[tuple[Icon, int, str]]:
    """Yield icons with their groups and classes; a picture once, and those of no group with several classes."""
    classes: dict[int, set[str]] = {}
    for icon, group in zip(icons, groups, strict=True):
        classes.setdefault(group, set()).update({label_of(icon)} - {""})
    seen: set[bytes] = set()
    for icon, group in zip(icons, groups, strict=True):
        label, pixels = label_of(icon), hashlib.sha256(icon.picture.tobytes()).digest()
        if label and len(classes[group]) == 1 and pixels not in seen:
            seen.add(pixels)
            yield icon, group, label
