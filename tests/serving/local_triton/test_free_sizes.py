"""Models with free sizes on a real Triton: they load, and answer at any size as the whole networks do, alone and behind our server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS, Repository
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from serving.local_triton.local import LocalTriton, local_triton
from serving.server import BackgroundServer
from tests import words
from tests.serving.free_nets import (
    IDS,
    IMAGES,
    LONGEST,
    MASK,
    MAX_ROWS,
    TEXT,
    TWINS,
    image,
    make_task,
    renamed,
    text,
    whole,
    write_free,
)
from tests.serving.local_triton.tritons import connect
from tests.serving.test_free_sizes import ask

pytestmark = pytest.mark.slow

SAME = "same"  # equal to `tag`, so that Triton needs a model that copies tensors of any length
SHARED_BYTES = 1000


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    tasks = {name: make_task(name) for name in TEXT} | {SAME: renamed(make_task("tag"), SAME)}
    return write_free(tmp_path_factory.mktemp("texts") / "repo", tasks=tasks)


@pytest.fixture(scope="module")
def triton(texts: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """A Triton that serves the texts, and beside them images and twin towers."""
    try:
        set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    for names in (IMAGES, TWINS):
        others = write_free(tmp_path_factory.mktemp("others") / "repo", names)
        for name in (*others.segments, *others.tasks):
            (others.path / name).rename(texts.path / name)
    for name in TEXT:
        words.save(texts.path / name)  # as of a task that takes text
    with local_triton(texts.path) as running:
        yield running


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_ensembles_answer_at_any_length(triton: LocalTriton, texts: Repository, protocol: str) -> None:
    assert len(texts.copies) == 1
    client = connect(protocol, triton.addresses)
    for length in (3, LONGEST):
        inputs = text(MAX_ROWS, length, length, hidden=1)
        answers = client.infer(ALL_TASKS, inputs)
        assert set(answers) == {*TEXT, SAME}
        for task in TEXT:
            np.testing.assert_allclose(answers[task], whole(task, inputs), atol=1e-5)
            np.testing.assert_allclose(client.infer(task, inputs)[task], whole(task, inputs), atol=1e-5)
        np.testing.assert_array_equal(answers[SAME], answers["tag"])
    client.close()


def test_images_of_any_size_and_towers_of_two_lengths(triton: LocalTriton) -> None:
    client = connect("grpc", triton.addresses)
    for height, width in ((3, 11), (9, 5)):
        inputs = image(2, height, width)
        for task in IMAGES:
            np.testing.assert_allclose(client.infer(task, inputs)[task], whole(task, inputs), atol=1e-5)
    for query, document in ((3, 7), (5, 5)):
        pair = {name: text(2, length, length)[IDS.name] for name, length in (("query", query), ("document", document))}
        np.testing.assert_allclose(client.infer("pair", pair)["pair"], whole("pair", pair), atol=1e-5)
    client.close()


def test_our_server_in_front_of_it_answers_any_mix_and_pads(triton: LocalTriton, texts: Repository) -> None:
    """Short texts go over the wire, long ones in shared memory, whose buffers are as large as the texts are."""
    options = TritonEngineOptions(statistics_s=3600, shared_from_bytes=SHARED_BYTES)
    lengths = [1 + number * 13 % LONGEST for number in range(20)]
    for pad_lengths in ((), (8, 32)):
        with BackgroundServer(
            texts,
            http_port=0,
            grpc_port=0,
            make_engine=lambda repository: TritonEngine(repository, triton.grpc_url, options),
            pad_lengths=pad_lengths,
        ) as server:
            asked = [text(2 * MAX_ROWS if length == LONGEST else 2, length, length, hidden=length // 3) for length in lengths]
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda inputs: ask(server, "grpc", ALL_TASKS, inputs), asked))
            for inputs, answer in zip(asked, answers, strict=True):
                for task in TEXT:
                    np.testing.assert_allclose(answer[task], whole(task, inputs), atol=1e-5)
            with pytest.raises(InferenceServerException, match="attention_mask' has length 3, but 'input_ids' has 4"):
                ask(server, "grpc", "tag", {**text(1, 4), MASK.name: text(1, 3)[MASK.name]})
