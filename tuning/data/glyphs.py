"""Tasks on letters drawn from fonts: no download, in colour, and tasks that want different depths of a network.

In every picture the letter, the typeface, the angle, both colours, the place and the size vary independently; a task asks for one
of them. The pictures are dealt once, by a seed: some to pretrain on (the source task "letters"), and apart from them pictures to
train all other tasks on and pictures to test on. The same seed and fonts give the same pictures.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont

from contract.preprocessing import Preprocessing
from tuning.data.corruptions import corrupt
from tuning.data.labelled import Split, TaskData
from tuning.data.typefaces import LETTERS, Typeface, find_typefaces
from tuning.errors import BadData

_Pictures = NDArray[np.uint8]  # (n, 64, 64, 3)
_Numbers = NDArray[np.int64]  # (n,)

_SOURCE, _TRAIN, _TEST = 2000, 600, 600
_SIDE = 64
_FINER = 2  # letters are drawn this much larger, turned, and then reduced
_EM = (40, 54)  # size of a letter in pixels per em; capitals are about 0.7 em high
_SHIFT = 4.0  # pixels from the middle, at most
_ANGLES = (-30, -15, 0, 15, 30)  # degrees, anticlockwise
_ANGLE_SPREAD = 3.0
_COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")  # 60 degrees of hue apart
_HUE_SPREAD = 12 / 360
_FEWEST_FONTS = 3


@dataclass(frozen=True, eq=False)
class _Deal:
    """What is drawn in each of n pictures.

    letter, font, angle, colour: classes. em: pixels. turn: degrees. shift: (n, 2), pixels. ink, paper: (n, 3), RGB in [0, 1].
    """

    letter: _Numbers
    font: _Numbers
    angle: _Numbers
    colour: _Numbers
    em: _Numbers
    turn: NDArray[np.float64]
    shift: NDArray[np.float64]
    ink: NDArray[np.float64]
    paper: NDArray[np.float64]


@dataclass(frozen=True)
class _GlyphTask:
    """A task on the letters.

    asks: which of a deal's classes are the targets. change: what happens to the finished pictures, with a seed.
    source: trained on the source pictures.
    """

    asks: str
    change: Callable[[_Pictures, int], _Pictures]
    source: bool = False


def _unchanged(pictures: _Pictures, seed: int) -> _Pictures:
    return pictures


def _inverted(pictures: _Pictures, seed: int) -> _Pictures:
    return 255 - pictures


def _noisy(pictures: _Pictures, seed: int) -> _Pictures:
    return corrupt(pictures, "gaussian_noise", 4, seed)


def _blurred(pictures: _Pictures, seed: int) -> _Pictures:
    return corrupt(pictures, "gaussian_blur", 4, seed)


GLYPH_TASKS: Mapping[str, _GlyphTask] = MappingProxyType(
    {
        "letters": _GlyphTask("letter", _unchanged, source=True),
        "letter": _GlyphTask("letter", _unchanged),
        "font": _GlyphTask("font", _unchanged),
        "angle": _GlyphTask("angle", _unchanged),
        "colour": _GlyphTask("colour", _unchanged),
        "inverted": _GlyphTask("letter", _inverted),
        "noisy": _GlyphTask("letter", _noisy),
        "blurred": _GlyphTask("letter", _blurred),
    }
)


def glyph_task(name: str, preprocessing: Preprocessing, seed: int = 0, typefaces: Sequence[Typeface] | None = None) -> TaskData:
    """Return the data of the task `name` of GLYPH_TASKS, drawn at 64x64 pixels and enlarged by `preprocessing`.

    typefaces: those that are found on this machine by default; the data's name says how many and a hash of their shapes.
    Raises BadData for an unknown name, or too few typefaces.
    """
    task = GLYPH_TASKS.get(name)
    if task is None:
        raise BadData(f"Unknown glyph task {name!r}; known are: {', '.join(GLYPH_TASKS)}.")
    fonts = find_typefaces() if typefaces is None else tuple(typefaces)
    _require_fonts(name, fonts)
    parts = ((0, _SOURCE) if task.source else (1, _TRAIN), (2, _TEST))
    train, test = (_make(task, fonts, preprocessing, count, seed, part) for part, count in parts)
    shapes = hashlib.sha256("".join(font.digest for font in fonts).encode()).hexdigest()[:8]
    return TaskData(f"{name} ({len(fonts)} fonts {shapes})", _labels(task.asks, fonts), train, test)


def draw_deal(count: int, fonts: int, seed: int, part: int) -> _Deal:
    """Return what `count` pictures of part 0 (source), 1 (training) or 2 (test) show; each class equally often, give or take one."""
    rng = np.random.default_rng((seed, part))
    letter, font, angle, colour = (
        rng.permutation(np.arange(count, dtype=np.int64) % classes)
        for classes in (len(LETTERS), fonts, len(_ANGLES), len(_COLOURS))
    )
    hue = colour / len(_COLOURS) + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD, count)
    return _Deal(
        letter,
        font,
        angle,
        colour,
        em=rng.integers(*_EM, count, endpoint=True),
        turn=np.array(_ANGLES)[angle] + rng.uniform(-_ANGLE_SPREAD, _ANGLE_SPREAD, count),
        shift=rng.uniform(-_SHIFT, _SHIFT, (count, 2)),
        ink=_rgb(hue % 1.0, rng.uniform(0.6, 1.0, count), rng.uniform(0.75, 1.0, count)),
        paper=_rgb(rng.random(count), rng.random(count), rng.uniform(0.0, 0.35, count)),
    )


def draw_pictures(deal: _Deal, fonts: Sequence[Typeface]) -> _Pictures:
    """Return the pictures of `deal`."""
    drawn: dict[tuple[int, int, int], Image.Image] = {}
    pictures = np.empty((len(deal.letter), _SIDE, _SIDE, 3), dtype=np.uint8)
    loaded: dict[tuple[int, int], ImageFont.FreeTypeFont] = {}
    for row, (letter, font, em) in enumerate(zip(deal.letter.tolist(), deal.font.tolist(), deal.em.tolist(), strict=True)):
        if (font, em) not in loaded:
            loaded[font, em] = fonts[font].font(em * _FINER)
        if (letter, font, em) not in drawn:
            drawn[letter, font, em] = _draw_letter(LETTERS[letter], loaded[font, em])
        cover = _turned(drawn[letter, font, em], float(deal.turn[row]), deal.shift[row])
        pictures[row] = np.rint(255 * (deal.paper[row] + cover[..., None] * (deal.ink[row] - deal.paper[row])))
    return pictures


def _make(task: _GlyphTask, fonts: Sequence[Typeface], preprocessing: Preprocessing, count: int, seed: int, part: int) -> Split:
    deal = draw_deal(count, len(fonts), seed, part)
    pictures = task.change(draw_pictures(deal, fonts), 3 * seed + part)  # no two parts get the same noise
    images = np.stack([preprocessing(Image.fromarray(picture)) for picture in pictures])
    return Split(images, getattr(deal, task.asks))


def _draw_letter(letter: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return the letter, white on black and grey at its edges, in the middle of a finer canvas."""
    canvas = Image.new("L", (_SIDE * _FINER, _SIDE * _FINER))
    ImageDraw.Draw(canvas).text((canvas.width / 2, canvas.height / 2), letter, fill=255, font=font, anchor="mm")
    left, top, right, bottom = canvas.getbbox() or (0, 0, *canvas.size)  # a font's own middle is not that of the ink
    return ImageChops.offset(canvas, (canvas.width - left - right) // 2, (canvas.height - top - bottom) // 2)


def _turned(letter: Image.Image, degrees: float, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share of each pixel the letter covers, (64, 64), once it is turned about the middle and shifted."""
    x, y = (shift * _FINER).tolist()
    turned = letter.rotate(degrees, Image.Resampling.BILINEAR, translate=(round(x), round(y)))
    return np.asarray(turned.reduce(_FINER)) / 255


def _rgb(hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([colorsys.hsv_to_rgb(*hsv) for hsv in zip(hue.tolist(), saturation.tolist(), value.tolist(), strict=True)])


def _labels(asks: str, fonts: Sequence[Typeface]) -> tuple[str, ...]:
    if asks == "font":
        return tuple(font.family for font in fonts)
    return {"letter": tuple(LETTERS), "angle": tuple(str(angle) for angle in _ANGLES), "colour": _COLOURS}[asks]


def _require_fonts(task: str, fonts: Sequence[Typeface]) -> None:
    needed = _FEWEST_FONTS if task == "font" else 1
    if len(fonts) < needed:
        raise BadData(
            f"The glyph task {task} needs at least {needed} typefaces, but {len(fonts)} can be found "
            f"({', '.join(font.family for font in fonts) or 'none'}); install matplotlib, which brings some, or fonts."
        )
