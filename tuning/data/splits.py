"""Whether the folders in a folder of images are classes or splits: decided by what is in them, not by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from tuning.data.folders import FolderContents
from tuning.errors import BadData

_Role = Literal["train", "validation", "test"]

_ROLES: Mapping[_Role, frozenset[str]] = {
    "train": frozenset({"train", "training", "trn", "trainset", "trainingset"}),
    "validation": frozenset({"val", "valid", "validation", "validate", "valset", "validationset", "dev", "devset"}),
    "test": frozenset({"test", "testing", "tst", "testset", "testingset", "eval", "evaluation", "holdout"}),
}
_AS_CLASSES = "If these are classes, put all of them into a folder called train."
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of "TestImages"


@dataclass(frozen=True)
class SplitLayout:
    """The folders of the splits, relative to the data's; validation, test: None when there is none. sentence: what was assumed."""

    train: PurePath
    validation: PurePath | None
    test: PurePath | None
    sentence: str


@dataclass(frozen=True)
class _Folder:
    """role: which split it is by its name. flat: whether it holds images itself. classes: names of folders in it that hold images."""

    name: str
    role: _Role | None
    flat: bool
    classes: frozenset[str]

    @property
    def like_a_split(self) -> bool:
        """Whether all of its images are in class folders."""
        return bool(self.classes) and not self.flat


def role_of(name: str) -> _Role | None:
    """Return which split a folder is by its name: Training, seg_train, TestImages, val2017; None for names that say none, or several."""
    words = re.findall("[a-z]+", _CAPITAL.sub(" ", name).lower())
    roles: list[_Role] = [role for role, names in _ROLES.items() if not names.isdisjoint(words)]
    return roles[0] if len(roles) == 1 else None


def find_layout(contents: FolderContents, where: Path) -> SplitLayout:
    """Return which folders are the splits. Raises BadData, with a way out, where folders could be splits or classes."""
    folders = _folders(contents)
    named = [folder for folder in folders if folder.role]
    others = [folder for folder in folders if not folder.role and (folder.flat or folder.classes)]
    splits = [folder for folder in named if folder.like_a_split]
    if not named or (others and not splits):
        _check_classes(folders, where)
        return SplitLayout(
            PurePath(), None, None, "There is no test split: a part of every class is held out for it, chosen by the seed."
        )
    if not splits:
        raise BadData(
            f"{where} holds {_names(named)}, by their names splits, but no folders of classes in them; put the images of each class into a "
            f"folder of its own, as {named[0].name}/CLASS. {_AS_CLASSES}"
        )
    if others and not _alike(splits):
        raise BadData(
            f"{where} holds {_names(splits)} like a split, with folders in it, beside {_names(others)}. "
            f"{_alone(where, splits)} {_AS_CLASSES}"
        )
    if not others and len(splits) < len(named):
        flat = next(folder for folder in named if folder not in splits)
        raise BadData(
            f"{where / flat.name} is a split by its name, but its images are not all in folders of classes, so that nothing says what "
            f"they show. {_alone(where, splits)} {_AS_CLASSES}"
        )
    return _layout(splits, where, [folder for folder in (*named, *others) if folder not in splits])


def _layout(splits: Sequence[_Folder], where: Path, others: Sequence[_Folder]) -> SplitLayout:
    by_role: dict[_Role, _Folder] = {}
    for folder in splits:
        if folder.role is not None and by_role.setdefault(folder.role, folder) is not folder:
            raise BadData(
                f"{where} holds both {by_role[folder.role].name} and {folder.name}, by their names the same split; put one elsewhere."
            )
    if "train" not in by_role:
        raise BadData(f"{where} holds {_names(splits)}, but no split to learn from. {_alone(where, splits)} {_AS_CLASSES}")
    train, validation, test = by_role["train"], by_role.get("validation"), by_role.get("test")
    sentence = " ".join([_assumed(train, validation, test), *([f"{_names(others)}: left out."] if others else [])])
    if test is None:
        validation, test = None, validation
    return SplitLayout(PurePath(train.name), _path(validation), _path(test), sentence)


def _assumed(train: _Folder, validation: _Folder | None, test: _Folder | None) -> str:
    """Return what becomes of the splits, as a sentence."""
    if test is not None and validation is not None:
        return (
            f"Splits: {train.name} to learn from, {validation.name} to choose by (searches score on it, final trainings learn from it, "
            f"too), {test.name} to test on."
        )
    if test is not None:
        return f"Splits: {train.name} to learn from, {test.name} to test on."
    if validation is not None:
        return f"Splits: {train.name} to learn from; {validation.name} to test on, as there is no test split."
    return f"{train.name} is the only split: a part of every class is held out to test on, chosen by the seed."


def _check_classes(folders: Sequence[_Folder], where: Path) -> None:
    """Raise BadData where every class has splits of its own, which would be learnt from and tested on alike."""
    filled = [folder for folder in folders if folder.flat or folder.classes]
    if filled and all(folder.like_a_split and _are_splits(folder.classes) for folder in filled):
        inside = ", ".join(sorted(filled[0].classes))
        raise BadData(f"Every class folder in {where} holds splits ({inside}); put the classes into the splits, as train/CLASS.")


def _are_splits(names: Iterable[str]) -> bool:
    roles = {role_of(name) for name in names}
    return None not in roles and "train" in roles and len(roles) > 1


def _alike(splits: Sequence[_Folder]) -> bool:
    """Return whether there are several, with the same classes as the one to learn from, or some of them."""
    train = next((folder for folder in splits if folder.role == "train"), None)
    return train is not None and len(splits) > 1 and all(folder.classes <= train.classes for folder in splits)


def _folders(contents: FolderContents) -> list[_Folder]:
    top = [path.name for path in contents.folders if len(path.parts) == 1]
    flat = {path.parts[0] for path in contents.images if len(path.parts) == 2}
    classes: dict[str, set[str]] = {name: set() for name in top}
    for path in contents.images:
        if len(path.parts) > 2:
            classes[path.parts[0]].add(path.parts[1])
    return [_Folder(name, role_of(name), name in flat, frozenset(classes[name])) for name in top]


def _alone(where: Path, splits: Sequence[_Folder]) -> str:
    train = next((folder for folder in splits if folder.role == "train"), splits[0])
    return f"To learn from one split alone, give {where / train.name}."


def _names(folders: Sequence[_Folder]) -> str:
    return ", ".join(folder.name for folder in folders)


def _path(folder: _Folder | None) -> PurePath | None:
    return None if folder is None else PurePath(folder.name)
