"""Models whose sizes are free: any size is answered as by the whole network, what does not fit is refused with one sentence."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from contract.errors import InvalidRequest, RepositoryError
from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from contract.repository.free_sizes import FreeSize
from contract.repository.record import OutputRecord, ParityRecord, recorded_places
from contract.repository.reference import at_reference
from contract.repository.sample import sample_inputs
from espalier.local import LocalRepository
from serving.catalog import Catalog
from serving.coupling import RowsCheck
from serving.engines.base import Answer, Call
from serving.engines.device_tensors import Device
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.session import check_outputs
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.errors import WrongAnswer
from serving.parity import check_answers
from serving.protocol.grpc.server import needed_bytes
from serving.server import BackgroundServer
from tests.serving.free_nets import (
    IDS,
    IMAGES,
    LONGEST,
    MASK,
    MAX_ROWS,
    REFERENCE,
    SIDES,
    TEXT,
    TWINS,
    VOCABULARY,
    Numbers,
    image,
    make_segment,
    make_task,
    text,
    whole,
    write_free,
)

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_free(tmp_path_factory.mktemp("texts") / "repo")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_free(tmp_path_factory.mktemp("images") / "repo", IMAGES)


@pytest.fixture(scope="module")
def served(texts: Repository) -> Iterator[BackgroundServer]:
    with BackgroundServer(texts.path, http_port=0, grpc_port=0, threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def local(texts: Repository) -> Iterator[LocalRepository]:
    with LocalRepository(texts.path, EngineOptions(learn_rows=True)) as opened:
        yield opened


def ask(server: BackgroundServer, kind: str, model: str, inputs: Mapping[str, Numbers]) -> dict[str, Numbers]:
    module: ModuleType = CLIENTS[kind]
    client: Any = module.InferenceServerClient(server.http_address if kind == "http" else server.grpc_address)
    tensors = []
    for name, values in inputs.items():
        tensors.append(module.InferInput(name, values.shape, "INT64" if values.dtype == np.int64 else "FP32"))
        tensors[-1].set_data_from_numpy(values)
    answer = client.infer(model, tensors)
    described = answer.get_response()
    outputs = described["outputs"] if kind == "http" else described.outputs
    names = [output["name"] if kind == "http" else output.name for output in outputs]
    client.close()
    return {name: answer.as_numpy(name) for name in names}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_text_of_any_length_is_answered_as_by_the_whole_network(served: BackgroundServer, kind: str) -> None:
    for length in (1, 5, REFERENCE, LONGEST):
        inputs = text(3, length, length, hidden=length // 2)
        answers = ask(served, kind, ALL_TASKS, inputs)
        assert set(answers) == set(TEXT)
        for task in TEXT:
            np.testing.assert_allclose(answers[task], whole(task, inputs), atol=1e-5)
            np.testing.assert_allclose(ask(served, kind, task, inputs)[task], whole(task, inputs), atol=1e-5)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from((*TEXT, ALL_TASKS)), st.integers(1, 9), st.integers(1, 12)), min_size=2, max_size=12))
def test_any_mix_of_lengths_at_once_is_answered_as_each_alone(
    local: LocalRepository, requests: list[tuple[str, int, int]]
) -> None:
    asked = [(model, text(rows, length, number, hidden=length // 3)) for number, (model, rows, length) in enumerate(requests)]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: local.infer(*one), asked))
    for (model, inputs), answer in zip(asked, answers, strict=True):
        assert set(answer) == set(TEXT if model == ALL_TASKS else (model,))
        for task, values in answer.items():
            np.testing.assert_allclose(values, whole(task, inputs), atol=1e-5)


def test_images_of_any_size_and_texts_of_two_lengths_of_their_own(images: Repository, tmp_path: Path) -> None:
    with LocalRepository(images.path) as opened:
        for height, width in ((3, 9), (8, 8), (17, 4)):
            inputs = image(4, height, width, height)
            answers = opened.infer(ALL_TASKS, inputs)
            for task in IMAGES:
                np.testing.assert_allclose(answers[task], whole(task, inputs), atol=1e-5)
    write_free(tmp_path / "repo", TWINS)
    with LocalRepository(tmp_path / "repo") as opened:
        for query, document in ((3, 3), (4, 12), (20, 1)):
            pair = {name: text(9, length, length)[IDS.name] for name, length in (("query", query), ("document", document))}
            np.testing.assert_allclose(opened.infer("pair", pair)["pair"], whole("pair", pair), atol=1e-5)


def test_features_that_stay_on_a_device_have_any_length(texts: Repository) -> None:
    sessions = SessionStoreOptions(threads=1, device=Device("cpu"))
    asked = [text(2, 3 + number % 3, number, hidden=1) for number in range(12)]
    with LocalRepository(texts.path, EngineOptions(sessions)) as opened, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda inputs: opened.infer(ALL_TASKS, inputs), asked))
    for inputs, answer in zip(asked, answers, strict=True):
        for task in TEXT:
            np.testing.assert_allclose(answer[task], whole(task, inputs), atol=1e-5)


def test_a_segment_by_name_takes_any_length_too(local: LocalRepository) -> None:
    state = local.infer("trunk", {"input": text(2, 7)[IDS.name], "input_1": text(2, 7)[MASK.name]})["output"]
    assert state.shape == (2, 7, 8)
    tags = local.infer("head-tag", {"input": state})["output"]
    np.testing.assert_allclose(tags, whole("tag", text(2, 7)), atol=1e-5)


def test_sizes_that_do_not_fit_are_refused_with_one_sentence(local: LocalRepository) -> None:
    inputs = text(2, 16)
    with pytest.raises(InvalidRequest) as refusal:
        local.infer("tag", {**inputs, MASK.name: inputs[MASK.name][:, :12]})
    assert str(refusal.value) == (
        "Input 'attention_mask' has length 12, but 'input_ids' has 16; model 'tag' takes them with one and the same length."
    )
    with pytest.raises(InvalidRequest) as refusal:
        local.infer("tag", text(1, LONGEST + 1))
    assert str(refusal.value) == f"Input 'input_ids' has length {LONGEST + 1}; model 'tag' takes 1 to {LONGEST}."
    with pytest.raises(InvalidRequest) as refusal:
        local.infer("tag", text(1, 0))
    assert str(refusal.value) == f"Input 'input_ids' has length 0; model 'tag' takes 1 to {LONGEST}."
    for wrong in (-1, VOCABULARY):
        beyond = text(2, 4)
        beyond[IDS.name][1, 2] = wrong
        with pytest.raises(InvalidRequest) as refusal:
            local.infer("tag", beyond)
        assert str(refusal.value) == (
            f"Input 'input_ids' has the value {wrong}, which is beyond the vocabulary of model 'tag'; it takes 0 to {VOCABULARY - 1}."
        )


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_refusal_arrives_over_both_protocols(served: BackgroundServer, kind: str) -> None:
    with pytest.raises(InferenceServerException, match=f"has length 99; model 'topic' takes 1 to {LONGEST}"):
        ask(served, kind, "topic", text(1, 99))


def test_a_refusal_calls_inputs_as_the_metadata_does(tmp_path: Path) -> None:
    named = replace(make_task("tag"), names={IDS.name: ("words",), MASK.name: ("seen",), "tag": ("tags:0",)})
    write_free(tmp_path / "repo", tasks={"tag": named})
    with LocalRepository(tmp_path / "repo") as opened:
        words, seen = text(1, 5).values()
        assert opened.infer("tag", {"words": words, "seen": seen})["tags:0"].shape == (1, 5, 4)
        with pytest.raises(InvalidRequest, match="Input 'seen' has length 4, but 'words' has 5"):
            opened.infer("tag", {"words": words, "seen": seen[:, :4]})
        with pytest.raises(InvalidRequest, match="Input 'words' has the value 50, which"):
            opened.infer("tag", {"words": np.full_like(words, VOCABULARY), "seen": seen})


def test_too_small_an_image_is_refused_and_without_a_limit_none_is_too_large(images: Repository) -> None:
    with LocalRepository(images.path) as opened:
        with pytest.raises(InvalidRequest, match="Input 'image' has width 2; model 'label' takes at least 3"):
            opened.infer("label", image(1, 3, 2))
        assert opened.infer("label", image(1, 400, 300))["label"].shape == (1, 3)


def test_a_size_between_the_steps_of_a_network_is_refused_with_the_nearest(tmp_path: Path) -> None:
    stepped = {"label": FreeSize(8, 4, 12, 4), "map": FreeSize(8, 3, None, 4, 2)}
    tasks = {name: replace(make_task(name), sizes={**SIDES, "height": size}) for name, size in stepped.items()}
    write_free(tmp_path / "repo", tasks=tasks)
    with LocalRepository(tmp_path / "repo") as opened:
        for task, height, rest in (
            ("label", 6, "takes 4 to 12 in steps of 4; 4 and 8 would do"),
            ("label", 13, "takes 4 to 12 in steps of 4; 12 would do"),
            ("map", 6, "takes at least 3 in steps of 4, and up to 1 more than each; 4 and 7 would do"),
            ("map", 2, "takes at least 3 in steps of 4, and up to 1 more than each; 3 would do"),
        ):
            with pytest.raises(InvalidRequest) as refusal:
                opened.infer(task, image(1, height, 5))
            assert str(refusal.value) == f"Input 'image' has height {height}; model {task!r} {rest}."
        for height in (4, 8, 12):
            assert set(opened.infer(ALL_TASKS, image(1, height, 5))) == {"label", "map"}


def test_of_all_tasks_the_limits_of_those_that_are_asked_for_count(tmp_path: Path) -> None:
    short = replace(make_task("tag"), sizes={"length": FreeSize(8, 2, 10)})
    write_free(tmp_path / "repo", tasks={"tag": short, "topic": make_task("topic")})
    with LocalRepository(tmp_path / "repo") as opened:
        with pytest.raises(InvalidRequest, match="Input 'input_ids' has length 11; model 'tag' takes 2 to 10"):
            opened.infer(ALL_TASKS, text(1, 11))
        assert set(opened.infer(ALL_TASKS, text(1, 11), ["topic"])) == {"topic"}
        assert set(opened.infer(ALL_TASKS, text(1, 10))) == {"tag", "topic"}


def test_tasks_that_take_different_inputs_are_asked_together_at_any_sizes(tmp_path: Path) -> None:
    tasks = {name: make_task(name) for name in ("tag", "label")}
    repository = write_free(tmp_path / "repo", tasks=tasks)
    model = Catalog(repository).models[ALL_TASKS]
    shapes = {spec.name: spec.shape for spec in model.example_inputs()}
    assert shapes == {"input_ids": (REFERENCE,), "attention_mask": (REFERENCE,), "image": (3, 8, 8)}
    assert {spec.name: spec.shape for spec in model.largest_inputs()} == {
        **{"input_ids": (LONGEST,), "attention_mask": (LONGEST,)},
        "image": (3, -1, -1),
    }
    with LocalRepository(repository.path) as opened:
        inputs = {**text(2, 9), **image(2, 5, 6)}
        for task, values in opened.infer(ALL_TASKS, inputs).items():
            np.testing.assert_allclose(values, whole(task, inputs), atol=1e-5)
        assert opened.infer(ALL_TASKS, image(3, 4, 4), ["label"])["label"].shape == (3, 3)
        with pytest.raises(InvalidRequest, match="Input 'image' has height 2; model 'label' takes at least 3"):
            opened.infer(ALL_TASKS, {**text(1, 9), **image(1, 2, 6)})
        assert set(opened.infer(ALL_TASKS, {**text(1, 9), **image(1, 2, 6)}, ["tag"])) == {"tag"}


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_metadata_says_what_is_free(served: BackgroundServer, kind: str) -> None:
    client: Any = CLIENTS[kind].InferenceServerClient(served.http_address if kind == "http" else served.grpc_address)
    said = {"as_json": True} if kind == "grpc" else {}
    metadata, config = client.get_model_metadata("tag", **said), client.get_model_config("tag", **said)
    config = config.get("config", config)
    assert [[int(size) for size in tensor["shape"]] for tensor in metadata["inputs"]] == [[-1, -1], [-1, -1]]
    assert [int(size) for size in metadata["outputs"][0]["shape"]] == [-1, -1, 4]
    assert [[int(size) for size in tensor["dims"]] for tensor in config["input"]] == [[-1], [-1]]
    client.close()


def test_the_list_of_tasks_and_the_statistics_know_of_free_sizes(served: BackgroundServer) -> None:
    ask(served, "http", "tag", text(2, 11))

    def get(path: str) -> Any:
        return msgspec.json.decode(urllib.request.urlopen(f"http://{served.http_address}/{path}").read())

    tag = next(task for task in get("tasks")["tasks"] if task["name"] == "tag")
    assert [[tensor["name"], tensor["shape"]] for tensor in (*tag["inputs"], *tag["outputs"])] == [
        [IDS.name, [-1]],
        [MASK.name, [-1]],
        ["tag", [-1, 4]],
    ]
    (stats,) = get("v2/models/trunk/stats")["model_stats"]
    assert {batch["batch_size"] for batch in stats["batch_stats"]} >= {2}


def test_the_example_of_the_api_is_at_the_reference_sizes_and_works(served: BackgroundServer) -> None:
    document = msgspec.json.decode(urllib.request.urlopen(f"http://{served.http_address}/openapi.json").read())
    path = next(path for path in document["paths"] if path.endswith("/versions/{version}/infer"))
    operation = document["paths"][path]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert [tensor["shape"][1:] for tensor in example["inputs"]] == [[REFERENCE]] * len(example["inputs"])
    (model,) = [entry["example"] for entry in operation["parameters"] if entry["name"] == "model"]
    request = urllib.request.Request(
        f"http://{served.http_address}/v2/models/{model}/infer",
        msgspec.json.encode(example),
        {"Content-Type": "application/json"},
    )
    assert urllib.request.urlopen(request).status == 200


def test_a_message_may_have_as_many_bytes_as_the_longest_texts(texts: Repository, images: Repository) -> None:
    long = replace(make_task("tag"), sizes={"length": FreeSize(8, 1, 700)})
    tag = Catalog(replace(texts, tasks={"tag": long}, segments={})).models["tag"]
    assert needed_bytes([tag]) == 1024 * 2 * 700 * 8
    assert needed_bytes(Catalog(images).models.values()) == 24 << 20  # nobody knows how large an image may be


def test_a_record_of_the_answers_at_the_reference_sizes_is_compared(texts: Repository, tmp_path: Path) -> None:
    def check(change: float) -> None:
        task = make_task("tag")
        sample = sample_inputs(at_reference(task.inputs, task.sizes))
        values = whole("tag", sample) + change
        flat = values.reshape(-1)
        record = OutputRecord(tuple(map(float, flat[recorded_places(flat.size)])), 1.0)
        tasks = {"tag": replace(task, parity=ParityRecord((record,), 1e-4))}
        repository = write_free(tmp_path / str(change), tasks=tasks)

        async def started() -> None:
            engine = EmbeddedEngine(repository, threads=1)
            await engine.start()
            try:
                await check_answers(engine, repository, repository.tasks.values())
            finally:
                await engine.aclose()

        asyncio.run(started())

    check(0.0)
    with pytest.raises(WrongAnswer):
        check(0.01)


def test_segments_that_do_not_say_it_are_found_to_be_independent_at_the_reference_sizes(texts: Repository) -> None:
    silent = replace(texts, segments={name: replace(segment, rows="") for name, segment in texts.segments.items()})

    async def judged() -> Repository:
        engine = EmbeddedEngine(silent, threads=1)
        await engine.start()
        try:
            return await RowsCheck(engine).judged(silent)
        finally:
            await engine.aclose()

    assert {segment.rows for segment in asyncio.run(judged()).segments.values()} == {"independent"}


def test_what_a_segment_gives_is_checked_at_the_reference_sizes() -> None:
    trunk, head = make_segment("trunk"), make_segment("head-topic")
    check_outputs(trunk, [np.zeros((1, REFERENCE, 8), np.float32)])
    for wrong in ((1, REFERENCE, 9), (1, REFERENCE + 1, 8), (1, REFERENCE), (1, REFERENCE, 8, 1)):
        with pytest.raises(RepositoryError, match="gives float32 rows of shape"):
            check_outputs(trunk, [np.zeros(wrong, np.float32)])
    halved = replace(trunk, outputs=(replace(trunk.outputs[0], axes=("half", "")),))  # follows from the inputs, nobody says how
    check_outputs(halved, [np.zeros((1, REFERENCE // 2, 8), np.float32)])
    with pytest.raises(RepositoryError, match="gives float32 rows of shape"):
        check_outputs(head, [np.zeros((1, 2), np.float32)])


def test_the_rows_of_a_request_are_answered_whatever_a_run_takes(texts: Repository) -> None:
    inputs = text(3 * MAX_ROWS + 1, 33, hidden=9)
    for elements in (1, 2000, 10**9):
        with LocalRepository(texts.path, EngineOptions(max_batch_elements=elements)) as opened:
            answers = opened.infer(ALL_TASKS, inputs)
        for task in TEXT:
            np.testing.assert_allclose(answers[task], whole(task, inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("length", "elements", "parts"),
    [
        (REFERENCE, None, 1),  # what a run may have does not divide the request
        (2 * REFERENCE, None, 2),
        (4 * REFERENCE, None, 6),
        (REFERENCE, 4 * (2 + 8) * REFERENCE, 2),
        (1, 4 * (2 + 8) * REFERENCE, 1),
    ],
)
def test_a_request_of_long_rows_goes_in_parts(texts: Repository, length: int, elements: int | None, parts: int) -> None:
    async def asked() -> Answer:
        options = EngineOptions(SessionStoreOptions(threads=1), max_batch_rows=1, max_batch_elements=elements)
        engine = EmbeddedEngine(texts, options=options)
        await engine.start()
        try:
            plan = make_plan(texts, ["tag"])
            return await engine.infer(plan, text(MAX_ROWS, length), Call(rows_per_run=MAX_ROWS))
        finally:
            await engine.aclose()

    answer = asyncio.run(asked())
    assert answer.parts == parts
    np.testing.assert_allclose(answer.outputs["tag"], whole("tag", text(MAX_ROWS, length)), atol=1e-5)
