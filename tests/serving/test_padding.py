"""Texts that are padded are answered as those that are not, run together, and only where that has been tried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import tritonclient.grpc
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

import espalier
from contract.dtypes import Array
from contract.plan import ExecutionPlan
from contract.repository import ALL_TASKS, Repository, TensorSpec
from contract.repository.config import task_config, to_text
from contract.repository.free_sizes import FreeSize
from contract.repository.record import OutputRecord, ParityRecord, recorded_places
from contract.repository.reference import at_reference
from contract.repository.sample import sample_inputs
from contract.text import TextInput
from espalier.commands.options.sizes import parse_lengths
from serving.engines.base import Answer, Call
from serving.engines.embedded import EmbeddedEngine
from serving.padding import Unpaddable, padded_outputs, padding_of
from serving.padding_check import PaddingCheck
from serving.requests import InferRequest, RequestedOutput
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving import text_nets
from tests.serving.free_nets import (
    IDS,
    IMAGES,
    LENGTH,
    LONGEST,
    MASK,
    TEXT,
    Numbers,
    image,
    make_segment,
    make_task,
    renamed,
    text,
    whole,
    write_free,
)
from tests.serving.text.test_texts import expected

LENGTHS = (4, 8, 24)
HEEDS = ("topic", "tag")
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_free(tmp_path_factory.mktemp("texts") / "repo")


def run(
    repository: Repository,
    action: Callable[[Router], Awaitable[Result]],
    lengths: Sequence[int] = LENGTHS,
    make_engine: Callable[..., EmbeddedEngine] = EmbeddedEngine,
) -> Result:
    async def answer() -> Result:
        router = Router(repository, make_engine(repository, threads=1), pad_lengths=lengths)
        await router.start()
        try:
            return await action(router)
        finally:
            await router.aclose()

    return asyncio.run(answer())  # type: ignore[arg-type]


def ask(
    router: Router, model: str, inputs: Mapping[str, Numbers], outputs: Sequence[str] = ()
) -> Awaitable[Mapping[str, Numbers]]:
    async def asked() -> Mapping[str, Numbers]:
        wanted = tuple(RequestedOutput(name) for name in outputs)
        return (await router.infer(InferRequest(model, inputs, wanted))).outputs

    return asked()


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.sampled_from((*TEXT, ALL_TASKS, "two")), st.integers(1, 5), st.integers(1, LONGEST), st.integers(0, 9)),
        min_size=1,
        max_size=8,
    )
)
def test_padded_and_unpadded_answers_agree(texts: Repository, requests: list[tuple[str, int, int, int]]) -> None:
    asked = [
        (ALL_TASKS if model == "two" else model, text(rows, length, length, min(hidden, length)), HEEDS if model == "two" else ())
        for model, rows, length, hidden in requests
    ]

    async def all_at_once(router: Router) -> list[Mapping[str, Numbers]]:
        return await asyncio.gather(*(ask(router, *one) for one in asked))

    padded, plain = run(texts, all_at_once), run(texts, all_at_once, ())
    for (_, inputs, _), ours, theirs in zip(asked, padded, plain, strict=True):
        assert ours.keys() == theirs.keys()
        for task in ours:
            assert ours[task].shape == theirs[task].shape
            np.testing.assert_allclose(ours[task], theirs[task], atol=1e-5)
            if inputs[MASK.name].any(axis=1).all():
                np.testing.assert_allclose(ours[task], whole(task, inputs), atol=1e-5)


def test_requests_of_different_lengths_run_together(texts: Repository) -> None:
    async def together(router: Router) -> list[int]:
        await ask(router, "tag", text(1, 5))  # from now on it is known that it is short, and goes with others of its turn
        before = router.segment_statistics()["trunk"]
        await asyncio.gather(*(ask(router, "tag", text(1, length)) for length in (5, 6, 7)))
        after = router.segment_statistics()["trunk"]
        return [after.runs - before.runs, after.rows - before.rows]

    assert run(texts, together) == [1, 3]
    assert run(texts, together, ()) == [3, 3]


def test_the_log_says_which_tasks_are_padded_and_which_not_and_why(texts: Repository, caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(router: Router) -> None:
        pass

    with caplog.at_level(logging.INFO, "serving.padding_check"):
        run(texts, nothing)
    told, refused = [record.getMessage() for record in caplog.records]
    assert told == "Texts are padded to 4, 8, 24 for 'tag', 'topic'."
    assert refused.startswith("Requests for 'mean' are not padded: padded to 9, its output 'mean' changes by ")
    assert refused.endswith(" of its largest value: the mask does not hide what is added.")


@pytest.mark.parametrize("lengths", [(2,), (4,), (LONGEST,)])
def test_what_the_mask_does_not_hide_is_found_at_any_length(texts: Repository, lengths: Sequence[int]) -> None:
    async def padded(router: Router) -> list[str]:
        return [name for name in TEXT if router.catalog.padded_outputs(router.catalog.find(name), [name])]

    assert run(texts, padded, lengths) == list(HEEDS)


def test_a_task_whose_padded_answer_is_not_the_recorded_one_is_not_padded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task("tag")
    flat = whole("tag", sample_inputs(at_reference(task.inputs, task.sizes))).reshape(-1)[recorded_places(64)]
    records = {"tag": 0.0, "other": 0.1}
    tasks = {
        name: replace(
            renamed(task, name),
            parity=ParityRecord((OutputRecord(tuple(float(value) + change for value in flat), 1.0),), 1e-4),
        )
        for name, change in records.items()
    }
    repository = write_free(tmp_path / "repo", tasks=tasks)

    async def padded(router: Router) -> list[str]:
        return [name for name in tasks if router.catalog.padded_outputs(router.catalog.find(name), [name])]

    assert run(repository, padded) == ["tag"]
    warned = [record for record in caplog.records if (record.name, record.levelname) == ("serving.padding_check", "WARNING")]
    (refused,) = [record.getMessage() for record in warned]
    assert "'other' are not padded: padded to 24, it does not answer as recorded" in refused


def test_a_text_without_a_token_that_counts_and_one_beyond_all_lengths_stay_as_they_are() -> None:
    padding = padding_of(make_task("tag"), (8, 16, 100))
    assert padding.lengths == (8, 16)  # the network takes no more than 64
    inputs = text(2, 5)
    padded = padding.padded(inputs)
    assert {values.shape for values in padded.values()} == {(2, 8)}
    assert not padded[MASK.name][:, 5:].any()
    for same in (text(2, 8), text(1, 17), {**inputs, MASK.name: inputs[MASK.name] * [[1], [0]]}):
        assert padding.padded(same) is same


def test_what_the_tokenizer_says_of_the_inputs_is_followed() -> None:
    task = replace(make_task("tag"), text=TextInput("", "words", "seen", pad=7))
    task = replace(task, inputs=(replace(IDS, name="words"), replace(MASK, name="seen")), values={"words": (0, 9)})
    words, seen = text(2, 3).values()
    padded = padding_of(task, (8,)).padded({"words": words, "seen": seen})
    assert (padded["words"][:, 3:] == 7).all()
    assert not padded["seen"][:, 3:].any()
    np.testing.assert_array_equal(padded["words"][:, :3], words)
    with pytest.raises(Unpaddable, match="it does not take 10, which its 'words' would be filled up with"):
        padding_of(replace(task, text=TextInput("", "words", "seen", pad=10)), (8,))
    with pytest.raises(Unpaddable, match="it takes no 'attention_mask' of integers"):
        padding_of(replace(task, text=TextInput("", "words")), (8,))


def test_answers_are_cut_where_they_have_the_length() -> None:
    task = make_task("tag")
    padding = padding_of(task, (8,))
    tags, topic = padded_outputs(task, padding)["tag"], padded_outputs(make_task("topic"), padding)["topic"]
    values = np.arange(2 * 8 * 4).reshape(2, 8, 4)
    np.testing.assert_array_equal(tags.cut(values, 3), values[:, :3])
    assert tags.cut(values, 3).flags.c_contiguous
    assert topic.cut(values[:, 0], 3) is not None
    assert topic.cut(values[:, 0], 3).shape == (2, 4)


def test_inputs_go_by_the_names_of_the_networks_own_file_too() -> None:
    task = replace(make_task("tag"), inputs=(replace(IDS, name="x"), replace(MASK, name="y")), values={})
    with pytest.raises(Unpaddable, match="it takes no 'attention_mask'"):
        padding_of(task, (8,))
    padding = padding_of(replace(task, names={"x": ("input_ids",), "y": ("attention_mask",)}), (8,))
    assert (padding.mask, padding.fill) == ("y", {"x": 0, "y": 0})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": (IDS,)}, "it takes no 'attention_mask' of integers with a length that is free"),
        ({"inputs": (IDS, replace(MASK, dtype="FP32"))}, "it takes no 'attention_mask' of integers"),
        ({"inputs": (IDS, replace(MASK, shape=(16,), axes=()))}, "it takes no 'attention_mask' of integers"),
        ({"inputs": (IDS, MASK, TensorSpec("weights", "FP32", (-1,), axes=("length",)))}, r"its input 'weights' \(FP32\)"),
        (
            {"outputs": (TensorSpec("tag", "FP32", (-1,), axes=("spans",)),)},
            "its output 'tag' has another free size than 'length'",
        ),
        ({"values": {"input_ids": (1, 9)}}, "it does not take 0, which its 'input_ids' would be filled up with"),
        ({"sizes": {"length": FreeSize(2, 1, 3)}}, "it takes none of the lengths 4, 8, 24"),
    ],
)
def test_what_cannot_be_padded_says_why(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unpaddable, match=reason):
        padding_of(replace(make_task("tag"), **changes), LENGTHS)


def test_segments_that_take_one_request_a_run_are_not_padded(texts: Repository, caplog: pytest.LogCaptureFixture) -> None:
    coupled = {**texts.segments, "head-tag": replace(make_segment("head-tag"), rows="coupled")}

    async def tried() -> list[tuple[str, str]]:
        engine = EmbeddedEngine(texts, threads=1)
        await engine.start()
        try:
            return list(await PaddingCheck(engine, LENGTHS).tried(replace(texts, segments=coupled)))
        finally:
            await engine.aclose()

    assert asyncio.run(tried()) == [("topic", "1")]
    assert "'tag' are not padded: its segment 'head-tag' takes one request a run." in caplog.text


def test_images_are_as_they_are(tmp_path: Path) -> None:
    repository = write_free(tmp_path / "repo", IMAGES)

    async def asked(router: Router) -> Mapping[str, Numbers]:
        return await ask(router, "label", image(1, 5, 6))

    np.testing.assert_allclose(run(repository, asked)["label"], whole("label", image(1, 5, 6)), atol=1e-5)


def test_a_task_that_is_loaded_later_is_tried_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = write_free(tmp_path / "repo", HEEDS)
    config = repository.path / "tag" / "config.pbtxt"

    async def loaded(router: Router) -> list[tuple[int, ...]]:
        def lengths() -> tuple[int, ...]:
            found = router.catalog.padded_outputs(router.catalog.find("tag"), ["tag"])
            return found["tag"].padding.lengths if found else ()

        before = lengths()
        shorter = replace(repository.tasks["tag"], sizes={"length": replace(LENGTH["length"], most=20)})
        config.write_text(to_text(task_config(shorter)))
        caplog.clear()
        await router.load("tag")
        return [before, lengths()]

    with caplog.at_level(logging.INFO, "serving.padding_check"):
        assert run(repository, loaded) == [LENGTHS, LENGTHS[:2]]
    assert [record.getMessage() for record in caplog.records if record.name == "serving.padding_check"] == [
        "Texts are padded to 4, 8, 24 for 'tag'."
    ]


def test_a_server_pads_what_comes_over_grpc(texts: Repository) -> None:
    with BackgroundServer(texts.path, http_port=0, grpc_port=0, threads=1, pad_lengths=LENGTHS) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_address)
        inputs = text(3, 5, hidden=2)
        tensors = [tritonclient.grpc.InferInput(name, values.shape, "INT64") for name, values in inputs.items()]
        for tensor, values in zip(tensors, inputs.values(), strict=True):
            tensor.set_data_from_numpy(values)
        np.testing.assert_allclose(client.infer("tag", tensors).as_numpy("tag"), whole("tag", inputs), atol=1e-5)
        client.close()


def test_texts_in_words_are_padded_as_their_ids_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = text_nets.write_repository(tmp_path / "repo", free=True)
    asked = ["cat", "the cat sat", "the dog ran far"]

    async def answered(router: Router) -> list[Any]:
        answers = await asyncio.gather(*(router.predict_texts([one], ["mood"], 1) for one in asked))
        return [answer.tasks["mood"][0].labels[0] for answer in answers]

    seen: list[int] = []

    class Watched(EmbeddedEngine):
        async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008
            seen.append(inputs[IDS.name].shape[1])
            return await super().infer(plan, inputs, call)

    with caplog.at_level(logging.INFO, "serving.padding_check"):
        padded = run(repository, answered, (8,), Watched)
    assert "Texts are padded to 8 for 'mood', 'shout', 'topic', 'words'." in caplog.text
    assert seen[-3:] == [8, 8, 8]
    plain = run(repository, answered, (), Watched)
    assert sorted(seen[-3:]) == [3, 5, 6]
    for ours, theirs, one in zip(padded, plain, asked, strict=True):
        label, score = expected("mood", one)
        assert (ours.label, theirs.label) == (label, label)
        assert [ours.score, theirs.score] == pytest.approx([score, score], abs=1e-5)


def test_a_repository_in_this_process_pads_too(texts: Repository, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "serving.padding_check"), espalier.open(texts.path, pad_lengths=LENGTHS) as opened:
        inputs = text(3, 5, hidden=2)
        np.testing.assert_allclose(opened.infer("tag", inputs)["tag"], whole("tag", inputs), atol=1e-5)
    assert "Texts are padded to 4, 8, 24 for 'tag', 'topic'." in caplog.text


def test_lengths_below_one_are_refused(texts: Repository) -> None:
    with pytest.raises(ValueError, match="texts are padded to lengths of at least 1"):
        Router(texts, EmbeddedEngine(texts), pad_lengths=(0, 8))


def test_lengths_are_given_with_commas() -> None:
    assert parse_lengths("16, 32,64", "--pad-lengths") == (16, 32, 64)
    for wrong in ("", "16,", "0,8", "-4", "16;32", "many"):
        with pytest.raises(typer.BadParameter, match="is no list of lengths, such as 16,32,64"):
            parse_lengths(wrong, "--pad-lengths")
