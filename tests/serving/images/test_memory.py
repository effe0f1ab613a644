"""What a picture takes beside what the server takes at rest: 12 bytes a pixel, and three times its file."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.serving.pictures import FORMATS, MOVING, chunk, file, picture, with_chunks

pytestmark = pytest.mark.slow

PIXEL_BYTES, FILE_COPIES, SPARE_BYTES = 12, 3, 4 << 20  # spare: what a decoder needs for any picture
SIDE = 1500

MEASURE = """
import json, sys
from pathlib import Path
from contract.preprocessing import Preprocessing
from serving.images.decode import ImageLimits, make_rows, open_pictures
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
def decode(path):
    return make_rows(open_pictures([("It", "", Path(path).read_bytes())], WAYS, ImageLimits()), WAYS)
WAYS = [Preprocessing(224, 224)]
decode(sys.argv[1])  # what is imported then is not a picture's
for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    decode(path)
    print(json.dumps((path, (kilobytes("VmHWM") - before) * 1024)), flush=True)
"""


def measure(folder: Path, files: dict[str, bytes]) -> dict[str, int]:
    """Return the bytes that decoding each file takes at its peak, all in one process of its own."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "first").write_bytes(file("PNG", picture(300, 300)))
    paths = [str(folder / name) for name in ("first", *files)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=100, check=True)
    return {Path(path).name: peak for path, peak in map(json.loads, done.stdout.splitlines())}


def test_every_format_and_mode_stays_below_the_bound(tmp_path: Path) -> None:
    files = {}
    for number, (kind, mode, options) in enumerate(FORMATS):
        fast = {"compress_level": 1} if kind == "PNG" else {}
        files[f"{number} {kind} {mode}"] = file(kind, picture(SIDE, SIDE, mode), **options, **fast)
    for kind, mode, options in MOVING:
        frames = [picture(SIDE, SIDE, mode).rotate(angle) for angle in (0, 90)]
        files[f"{kind} moving"] = file(kind, frames[0], save_all=True, append_images=frames[1:], **options)
    peaks = measure(tmp_path, files)
    allowed = {name: PIXEL_BYTES * SIDE**2 + FILE_COPIES * len(data) + SPARE_BYTES for name, data in files.items()}
    assert {name: peaks[name] for name in files if peaks[name] > allowed[name]} == {}


def test_what_is_no_picture_takes_what_its_file_takes(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(1_000_000))
    small = file("PNG", picture(8, 8))
    texts = {
        kind: chunk(kind.encode(), rest + bomb)
        for kind, rest in (("zTXt", b"a\0\0"), ("iTXt", b"a\0\1\0\0\0"), ("iCCP", b"a\0\0"))
    }
    peaks = measure(tmp_path, {kind: with_chunks(small, text * 60) for kind, text in texts.items()})
    assert {name: peak for name, peak in peaks.items() if peak > SPARE_BYTES} == {}
