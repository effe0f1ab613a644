"""Data by name: one string says where the images come from, and options say what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from contract.preprocessing import Preprocessing
from tuning.data.corruptions import corrupt, parse_corruption
from tuning.data.digits import digit_task
from tuning.data.emoji import emoji_task
from tuning.data.glyphs import glyph_task
from tuning.data.icons import icon_task
from tuning.data.labelled import Draw, Split, TaskData, draw_task, folder_task
from tuning.data.tables import TABLE_SUFFIXES, TableOptions, table_task
from tuning.data.torchvision_sets import torchvision_task
from tuning.data.vtab import vtab_task
from tuning.errors import BadData, BadOptions
from tuning.network.files import cache_folder


@dataclass(frozen=True)
class DataOptions:
    """Where data is kept, how much of it is used, and what happens to its images.

    folder: of downloaded sets; by default espalier's part of the user's cache folder. download: fetch a set that is not there.
    corruption: name and severity ("gaussian_noise:3"), for training and test images alike: a shift of the input.
    train_images, test_images: stratified draws of so many; a fixed validation split is given up when training images are drawn.
    seed: fixes everything that is dealt, held out, drawn or disturbed.
    table: for labels and values, which come in a table; None: classes.
    """

    folder: Path | None = None
    download: bool = False
    corruption: str | None = None
    train_images: int | None = None
    seed: int = 0
    test_images: int | None = None
    table: TableOptions | None = None

    def __post_init__(self) -> None:
        for name, count in (("train_images", self.train_images), ("test_images", self.test_images)):
            if count is not None and count < 1:
                raise BadOptions(f"{name} must be at least 1, not {count}.")
        if not 0 <= self.seed < 2**63:
            raise BadOptions(f"seed must be between 0 and 2**63 - 1, not {self.seed}.")
        if self.corruption is not None:
            parse_corruption(self.corruption)


def load_data(source: str, preprocessing: Preprocessing, options: DataOptions | None = None) -> TaskData:
    """Return the data that `source` names: a table, with `options.table`, a folder, or one of

        digits:TASK        scikit-learn's digits (DIGIT_TASKS)
        glyphs:TASK        letters drawn from fonts (GLYPH_TASKS)
        emoji:VENDOR/TASK  emoji of google or twitter (EMOJI_TASKS)
        icons:TASK         icons of cloud services (ICON_TASKS)
        torchvision:NAME   a set that torchvision knows (PUBLIC_SETS); capitals and dashes do not matter
        vtab:FOLDER        a task of VTAB-1k

    The data's name says all that was done to it. Raises BadData for unknown names and data that cannot be used, BadOptions.
    """
    options = options or DataOptions()
    data = _load(source, preprocessing, options)
    if options.corruption is not None:
        data = _corrupted(data, options.corruption, options.seed)
    return replace(data, name=_describe(data.name, options))


def data_folder() -> Path:
    """Return where downloaded sets are kept by default."""
    return cache_folder() / "data"


def _load(source: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    if options.table is not None:
        return table_task(Path(source), options.table, preprocessing, _draw(options))
    prefix, colon, rest = source.partition(":")
    if colon and prefix in DATA_SOURCES:
        data = DATA_SOURCES[prefix](rest, preprocessing, options)
        return replace(data, name=f"{prefix}:{data.name}")
    path = Path(source)
    if colon and len(prefix) > 1 and not path.exists():  # one letter is a drive of Windows
        known = ", ".join(f"{name}:" for name in DATA_SOURCES)
        raise BadData(f"Unknown data source {source!r}; give a folder of images, or a name that begins with one of {known}.")
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        raise BadData(
            f"{path} is a table, which is for the kinds labels and values: with their kind said they can be fitted, searched and compared, "
            "but not pruned, asked about or transferred. Classes come in a folder that has a folder of images per class."
        )
    return folder_task(path, preprocessing, seed=options.seed, train_images=options.train_images, test_images=options.test_images)


def _digits(name: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    return draw_task(digit_task(name, preprocessing, options.seed), _draw(options))


def _glyphs(name: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    return draw_task(glyph_task(name, preprocessing, options.seed), _draw(options))


def _emoji(name: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    folder = (options.folder or data_folder()) / "emoji"
    return emoji_task(name, preprocessing, folder, download=options.download, draw=_draw(options))


def _icons(name: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    folder = (options.folder or data_folder()) / "icons"
    return icon_task(name, preprocessing, folder, download=options.download, draw=_draw(options))


def _torchvision(name: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    folder = options.folder or data_folder()
    return torchvision_task(name, preprocessing, folder, download=options.download, draw=_draw(options))


def _vtab(folder: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
    return vtab_task(Path(folder), preprocessing, _draw(options))


DATA_SOURCES: Mapping[str, Callable[[str, Preprocessing, DataOptions], TaskData]] = MappingProxyType(
    {"digits": _digits, "emoji": _emoji, "glyphs": _glyphs, "icons": _icons, "torchvision": _torchvision, "vtab": _vtab}
)


def _draw(options: DataOptions) -> Draw:
    return Draw(options.train_images, options.test_images, options.seed)


def _corrupted(data: TaskData, corruption: str, seed: int) -> TaskData:
    name, severity = parse_corruption(corruption)
    # Training and test images are disturbed by different random numbers.
    train = Split(corrupt(data.train.images, name, severity, 2 * seed), data.train.targets)
    test = Split(corrupt(data.test.images, name, severity, 2 * seed + 1), data.test.targets)
    return replace(data, train=train, test=test)


def _describe(name: str, options: DataOptions) -> str:
    """Return `name` and what the options did: "digits:digits gaussian_noise:3, 100 images"."""
    shifted = name if options.corruption is None else f"{name} {options.corruption}"
    parts = [
        shifted,
        "" if options.train_images is None else f"{options.train_images} images",
        "" if options.test_images is None else f"{options.test_images} test images",
        "" if options.seed == 0 else f"seed {options.seed}",
    ]
    return ", ".join(part for part in parts if part)
