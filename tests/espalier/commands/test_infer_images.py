"""`espalier infer` and the clients, about several images."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from PIL import Image

import espalier
from contract.repository import Repository
from serving.errors import NotAnImage, RequestRefused
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier as command
from tests.serving.nets import images, whole

pytestmark = pytest.mark.slow
COUNT = 40


def untimed(answer: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in answer.items() if name != "timings"}


def test_several_images_are_asked_about(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, pictures = tmp_path / "photos", images(COUNT)
    photos.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(photos / f"{number:02}.png")
    best = [["cat", "dog", "emu"][int(row.argmax())] for row in whole("probe", pictures)]
    files = [str(photos / f"{number:02}.png") for number in range(COUNT)]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("none")
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as server:
        url = f"http://{server.http_address}"

        async def ask() -> list[dict[str, object]]:
            async with espalier.AsyncClient(url) as client:
                return await client.predict_many([photos], ["probe"], 1)

        found = [*espalier.Client(url).predict_many([*files[:1], photos], ["probe"], 1)]
        assert [answer["filename"] for answer in found] == [files[0], *files]
        assert [answer["tasks"]["probe"]["labels"][0]["label"] for answer in found] == [best[0], *best]
        timed = [answer.pop("timings") for answer in found]
        assert [one["images"] for one in timed] == [32] * 32 + [9] * 9
        assert all(answer["errors"] == {} for answer in found)
        assert [untimed(answer) for answer in asyncio.run(ask())] == found[1:]
        run = command("infer", photos, files[0], "--task", "probe", "--top-k", "1", "--json", "--url", url)
        assert [untimed(json.loads(line)) for line in run.stdout.splitlines()] == [*found[1:], found[0]], run.stderr
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(files[3]).read_bytes())))
        run = command("infer", "-", "--task", "probe", "--top-k", "1", "--json", "--url", url)
        assert json.loads(run.stdout)["tasks"] == found[4]["tasks"], run.stderr
        run = command("infer", files[0], files[1], "--task", "probe", "--top-k", "1", "--url", url)
        assert (run.returncode, best[1] in run.stdout, "image" in run.stdout) == (0, True, True)
        run = command("infer", files[0], "--task", "probe", "--show", "logits,scores", "--show", "preprocessing", "--url", url)
        assert run.returncode == 0, run.stderr
        assert ", ".join(f"{value:.4g}" for value in whole("probe", pictures[:1])[0]) in " ".join(run.stdout.split())
        assert "preprocessing: height" in run.stdout
        for option, words in (("--show", "known are: logits, scores, preprocessing."), ("--vectors", "must be list or base64")):
            run = command("infer", files[0], option, "all", "--url", url)
            assert (run.returncode, words in " ".join(run.stderr.replace("│", " ").split())) == (2, True), run.stderr
        with pytest.raises(NotAnImage, match="empty has no files"):
            [*espalier.Client(url).predict_many([tmp_path / "empty"])]
        with pytest.raises(RequestRefused, match=r"File 2 \(.*text\.png.*\) is not an image"):
            [*espalier.Client(url).predict_many([files[0], tmp_path / "text.png"])]
