"""Tasks of each kind from a torch network through export to the answer of /predict, in another process and in this one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import espalier
from contract.repository import Repository, read_repository
from exporter.build.kinds import describe_ends
from exporter.errors import KindOfAnother
from exporter.export import ExportReport
from exporter.sources.references import InputOptions
from serving.server import BackgroundServer
from tests.kinds_nets import SIZE
from tests.serving.pictures import file
from tests.serving.protocol.http.test_http import Http

KINDS = {
    "segments": "mask",
    "one_thing": "mask",
    "sure": "mask",
    "means": "values:units=%",
    "vector": "embedding:normalized=true",
    "marks": "labels:thresholds=0.5",
    "one_mark": "labels",
    "shares": "labels:thresholds=0.3",
    "yolo": "boxes:layout=yolo",
    "sure_yolo": "boxes:layout=yolo",
    "detr": "boxes:layout=detr",
    "soft_detr": "boxes:layout=detr",
    "rtdetr": "boxes:layout=rtdetr",
    "sure_rtdetr": "boxes:layout=rtdetr",
    "torchvision": "boxes:layout=torchvision",
}
RED, BLUE = (10, 30, 30, 50), (35, 50, 55, 65)
INPUTS = InputOptions("in-graph", SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def network(task: str) -> str:
    return f"tests.kinds_nets:{'means' if task == 'vector' else task}"


def picture() -> Image.Image:
    """Return a high picture, of which the crop cuts off a sixth above and below, with a red and a blue rectangle."""
    image = Image.new("RGB", (60, 90))
    for (x1, y1, x2, y2), colour in ((RED, "red"), (BLUE, "blue")):
        ImageDraw.Draw(image).rectangle([x1, y1, x2 - 1, y2 - 1], fill=colour)
    return image


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, kept_traces: None) -> ExportReport:
    tasks = {task: network(task) for task in KINDS} | {"plain": network("segments"), "guess": network("means")}
    return espalier.export(tasks, tmp_path_factory.mktemp("kinds") / "repo", inputs=INPUTS, kinds=KINDS)


@pytest.fixture(scope="module")
def repo(exported: ExportReport) -> Repository:
    return read_repository(exported.repository.path)


@pytest.fixture(scope="module")
def ask(repo: Repository) -> Iterator[Http]:
    with BackgroundServer(repo.path, http_port=0, grpc_port=0, threads=1) as server:
        http = Http(server)
        yield http
        http.connection.close()


@pytest.fixture(scope="module")
def answer(ask: Http) -> dict[str, Any]:
    status, body = ask("POST", "/predict", file("PNG", picture()))
    assert status == 200, body
    return dict(body["tasks"])


def test_every_task_with_a_kind_answers_and_says_which(answer: dict[str, Any], repo: Repository) -> None:
    assert {name: found["kind"] for name, found in answer.items()} == {
        **{name: kind.partition(":")[0] for name, kind in KINDS.items()},
        "guess": "classes",
    }
    assert repo.tasks["plain"].kind is None  # nobody said
    assert repo.tasks["means"].answers != repo.tasks["guess"].answers
    assert [step.segment for step in repo.tasks["means"].steps] == [step.segment for step in repo.tasks["guess"].steps]


@pytest.mark.parametrize("task", [task for task, kind in KINDS.items() if kind.startswith("boxes")])
def test_boxes_are_where_they_were_drawn(answer: dict[str, Any], task: str) -> None:
    found = {box["label"]: box["box"] for box in answer[task]["boxes"]}
    red, blue = ("1", "3") if task == "torchvision" else ("0", "2")  # there, 0 is the background
    assert found.keys() == {red, blue}
    np.testing.assert_allclose(found[red], RED, atol=1.5)
    np.testing.assert_allclose(found[blue], BLUE, atol=1.5)


def test_masks_are_where_it_was_drawn_and_unknown_where_the_crop_cut_off(answer: dict[str, Any]) -> None:
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["segments"]["png"]))))
    assert mask.shape == (90, 60)
    assert (mask[:15] == 255).all()
    assert (mask[75:] == 255).all()
    for (x1, y1, x2, y2), index in ((RED, 1), (BLUE, 3)):
        assert (mask[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] == index).all()
        assert (mask == index).sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.2)
    areas = {area["label"]: area["pixels"] for area in answer["segments"]["areas"]}
    assert areas == {str(index): int((mask == index).sum()) for index in (0, 1, 3)}
    assert answer["segments"]["unknown_pixels"] == 60 * 30
    coarse = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["one_thing"]["png"]))))
    assert set(np.unique(coarse)) == {0, 1, 255}
    assert (coarse[RED[1] + 4 : RED[3] - 4, RED[0] + 4 : RED[2] - 4] == 1).all()


def test_how_networks_end_decides_how_their_scores_are_read(answer: dict[str, Any], repo: Repository) -> None:
    masks = [np.asarray(Image.open(io.BytesIO(base64.b64decode(answer[task]["png"])))) for task in ("one_thing", "sure")]
    assert (masks[0] == masks[1]).mean() > 0.95
    assert (answer["one_mark"]["labels"], {label["label"] for label in answer["shares"]["labels"]}) == ([], {"0", "2"})
    assert {*describe_ends(task for task in repo.tasks.values() if task.answers.word() != "boxes")} == {
        "Masks: scores from 0 to 1, so that things are where they are above 0.5: sure.",
        "Labels: probabilities that sum to one, so that two labels hardly reach 0.5 together: shares. If one of several is meant, the "
        "kind is classes.",
    }


def test_a_softmax_or_sigmoid_at_the_end_is_found_and_none_is_taken_again(answer: dict[str, Any], repo: Repository) -> None:
    for ended, plain in (("soft_detr", "detr"), ("sure_rtdetr", "rtdetr")):
        scores = [[box["score"] for box in answer[task]["boxes"]] for task in (ended, plain)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
    assert {*describe_ends(task for task in repo.tasks.values() if task.answers.word() == "boxes")} == {
        "Boxes: scores from 0 to 1 for the sample, taken for such though no sigmoid or softmax was found at the end: torchvision, yolo.",
        "Boxes: the network ends in logits, whose softmax gives the scores: detr.",
        "Boxes: the last class is taken for that of nothing, there being no labels: detr, soft_detr.",
        "Boxes: the network ends in logits, whose sigmoid gives the scores: rtdetr.",
        "Boxes: scores that are from 0 to 1 where the network ends, and are read as they are: soft_detr, sure_rtdetr.",
    }


@pytest.mark.parametrize(
    ("net", "layout", "words"),
    [
        ("yolo_logits", "yolo", r"gives scores from -\d\S* to \S+, and those of the layout yolo are from 0 to 1"),
        (
            "sure_rtdetr",
            "detr",
            r"do not sum to one over the classes, so that the last is not that of nothing, as the layout detr has it",
        ),
        (
            "soft_detr",
            "rtdetr",
            r"gives probabilities that sum to one over the classes, and those of the layout rtdetr are each by itself",
        ),
    ],
)
def test_boxes_whose_scores_are_of_another_layout_are_refused(tmp_path: Path, net: str, layout: str, words: str) -> None:
    with pytest.raises(KindOfAnother, match=rf"'y' cannot be of the kind 'boxes': it .*{words}"):
        espalier.export({"y": network(net)}, tmp_path / "repo", inputs=INPUTS, kinds={"y": f"boxes:layout={layout}"})
    assert not (tmp_path / "repo").exists()


def test_numbers_labels_and_vectors(answer: dict[str, Any], ask: Http) -> None:
    assert [label["label"] for label in answer["marks"]["labels"]] == ["0", "2"]
    values = answer["means"]["values"]
    assert [one["unit"] for one in values] == ["%"] * 3
    assert values[0]["value"] > values[2]["value"] > values[1]["value"] == 0
    vector = answer["vector"]["vector"]
    assert np.linalg.norm(vector) == pytest.approx(1)
    status, body = ask("POST", "/predict/vector?vectors=base64", file("PNG", picture()))
    assert (status, np.frombuffer(base64.b64decode(body["tasks"]["vector"]["vector"]), "<f4").tolist()) == (
        200,
        pytest.approx(vector),
    )


SHOWN = ("logits", "scores", "preprocessing")


@pytest.fixture(scope="module")
def shown(ask: Http) -> dict[str, Any]:
    status, body = ask("POST", "/predict?show=preprocessing,logits&show=scores", file("PNG", picture()))
    assert status == 200, body
    return dict(body["tasks"])


def values_over_v2(repo: Repository, task: str) -> list[float]:
    how = repo.tasks[task].preprocessing
    assert how is not None
    with espalier.open(repo.path) as opened:
        return list(opened.infer(task, {"image": how(picture())[None]})[task][0].tolist())


def test_what_answers_are_made_of_is_shown_where_it_is_asked_for(
    answer: dict[str, Any], shown: dict[str, Any], repo: Repository
) -> None:
    beside = {name: {word for word in SHOWN if word in found} for name, found in shown.items()}
    assert {name: {key: found[key] for key in found if key not in SHOWN} for name, found in shown.items()} == answer
    assert beside["guess"] == beside["marks"] == {*SHOWN}
    assert beside["means"] == beside["vector"] == {"logits", "preprocessing"}
    assert beside["segments"] == beside["yolo"] == {"preprocessing"}
    for task in ("guess", "marks", "vector", "shares"):
        assert shown[task]["logits"] == pytest.approx(values_over_v2(repo, task), rel=1e-4, abs=1e-6)
    logits = np.array(shown["guess"]["logits"])
    assert shown["guess"]["scores"] == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    assert shown["marks"]["scores"] == pytest.approx(1 / (1 + np.exp(-np.array(shown["marks"]["logits"]))))
    assert len(shown["marks"]["scores"]) > len(shown["marks"]["labels"])  # also of those below their thresholds
    assert shown["shares"]["scores"] == pytest.approx(shown["shares"]["logits"])  # which are probabilities already
    how = shown["guess"]["preprocessing"]
    assert (how["height"], how["width"], how["mean"], how["std"]) == (SIZE, SIZE, [0, 0, 0], [1, 1, 1])


def test_the_clients_and_this_process_show_the_same_by_the_same_words(shown: dict[str, Any], ask: Http, repo: Repository) -> None:
    client = espalier.Client(f"http://127.0.0.1:{ask.connection.port}")
    png, tasks = file("PNG", picture()), ["guess", "marks", "vector"]
    expected = {task: shown[task] for task in tasks}
    assert client.predict(png, tasks, show=SHOWN)["tasks"] == expected
    (row,) = client.predict_many([png], tasks, show=SHOWN)
    assert (row["tasks"], row["errors"], row["timings"]["images"]) == (expected, {}, 1)
    assert row["timings"]["compute_ms"] > 0
    (coded,) = client.predict_many([png], ["vector"], vectors="base64", show="logits")
    numbers = np.frombuffer(base64.b64decode(coded["tasks"]["vector"]["vector"]), "<f4").tolist()
    assert (numbers, coded["tasks"]["vector"]["logits"]) == (pytest.approx(shown["vector"]["vector"]), shown["vector"]["logits"])
    with espalier.open(repo.path) as opened:
        found = opened.predict(picture(), tasks, show=SHOWN).tasks
    assert {name: json.loads(rows[0].model_dump_json()) for name, rows in found.items()} == expected


def test_in_this_process_it_is_the_same(answer: dict[str, Any], repo: Repository) -> None:
    with espalier.open(repo.path) as opened:
        found = opened.predict([picture()]).tasks
    assert {name: json.loads(rows[0].model_dump_json()) for name, rows in found.items()} == answer


def test_over_v2_a_task_gives_its_tensors_whatever_its_kind(ask: Http) -> None:
    seen = np.asarray(picture().resize((32, 48)).crop((0, 8, 32, 40)))
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": seen.ravel().tolist()}]}
    status, found = ask("POST", "/v2/models/segments/infer", json.dumps(body))
    assert (status, found["outputs"][0]["shape"]) == (200, [1, 4, SIZE, SIZE])


def test_tasks_are_described_with_their_kinds(ask: Http) -> None:
    status, body = ask("GET", "/tasks")
    kinds = {task["name"]: task["kind"] for task in body["tasks"]}
    assert status == 200
    assert (kinds["marks"], kinds["yolo"]["layout"], kinds["plain"]) == (
        {"kind": "labels", "thresholds": [0.5]},
        "yolo",
        {"kind": "tensor"},
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/predict/segments?top_k=3", "Task 'segments' is of the kind 'mask', which has no best 3; leave out top_k."),
        (
            "/predict/plain",
            "Task 'plain' is of the kind 'tensor', which people do not read; ask for its values through v2/models/plain",
        ),
        ("/predict/vector?vectors=hex", "vectors"),
        (
            "/predict/segments?show=logits",
            "Task 'segments' is of the kind 'mask', which has no logits to show; ask for its values through v2/models/segments/infer.",
        ),
        ("/predict/means?show=scores", "Task 'means' is of the kind 'values', which has no scores to show"),
        (
            "/predict/means?show=loss",
            "'loss' is nothing that is shown beside an answer; known are: logits, scores, preprocessing.",
        ),
    ],
)
def test_what_a_kind_has_not_is_refused(ask: Http, path: str, words: str) -> None:
    status, body = ask("POST", path, file("PNG", picture()))
    assert (status, words in body["error"]) == (400, True), body


def test_top_k_is_of_those_that_have_a_best(ask: Http) -> None:
    status, body = ask("POST", "/predict?top_k=1&tasks=segments,yolo,guess", file("PNG", picture()))
    assert (status, len(body["tasks"]["yolo"]["boxes"]), len(body["tasks"]["guess"]["labels"])) == (200, 1, 1)


def test_a_kind_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(KindOfAnother, match=r"'means' cannot be of the kind 'mask': it gives \[n, 3\], and a mask is one output"):
        espalier.export({"means": network("means")}, tmp_path / "repo", inputs=INPUTS, kinds={"means": "mask"})
    assert not (tmp_path / "repo").exists()


def test_a_new_version_keeps_the_kind_unless_it_brings_one(repo: Repository, tmp_path: Path) -> None:
    tasks = {"means": network("means")}
    espalier.export(tasks, tmp_path / "repo", inputs=INPUTS, kinds={"means": "embedding"})
    added = espalier.add(tmp_path / "repo", tasks, inputs=INPUTS, replace=True)
    assert added.repository.tasks["means"].version == "1"  # what it is already
    espalier.add(tmp_path / "repo", tasks, inputs=INPUTS, replace=True, kinds={"means": "values"})
    means = read_repository(tmp_path / "repo").tasks["means"]
    assert (means.version, means.answers.word(), means.previous and means.previous.answers.word()) == ("2", "values", "embedding")


def test_an_embedding_that_is_what_the_trunk_gives_has_no_segment_of_its_own(tmp_path: Path) -> None:
    """Pooled or not: asked alone it runs what the others share, and nothing else."""
    tasks = {name: f"tests.kinds_nets:{name}" for name in ("feature", "head_one", "head_two")}
    repo = espalier.export(tasks, tmp_path / "repo", inputs=INPUTS, kinds={"feature": "embedding"}).repository
    segments = {name: [step.segment for step in task.steps] for name, task in repo.tasks.items()}
    assert segments["head_one"][:-1] == segments["head_two"][:-1] == segments["feature"]
    with espalier.open(repo.path) as opened:
        assert [run.segment for run in opened.predict([picture()], ["feature"]).runs] == segments["feature"]
        found = opened.predict([picture()]).tasks
    assert found["feature"][0].kind == "embedding"
    assert found["head_one"][0].kind == "classes"
