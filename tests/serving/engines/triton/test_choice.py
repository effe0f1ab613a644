"""What the Triton engine decides without a Triton: addresses, which ensemble is asked, what errors mean, how counts add up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from contract.errors import EspalierError
from contract.plan import make_plan
from contract.repository import ALL_TASKS, Canary, Repository
from contract.repository.config import all_tasks_config
from serving.catalog import Catalog
from serving.engines.base import BatchStatistics, RequestSeconds
from serving.engines.triton.addresses import Address, parse_urls, resolve, target
from serving.engines.triton.choice import Choices, Ensemble, Ensembles, choose, unchanged
from serving.engines.triton.errors import (
    InvalidTritonUrl,
    ModelControlOff,
    ModelUnavailable,
    TritonBusy,
    TritonLoadFailed,
    TritonUnreachable,
    translated,
    translated_control,
)
from serving.engines.triton.models import models_of, wiring
from serving.engines.triton.statistics import TritonStatistics
from serving.errors import DeadlineExceeded, EngineDown, EngineError, QueueFull
from serving.protocol.status import wire_codes
from tests.serving.nets import LAYERS, MAX_ROWS, TASK_NAMES, make_repository, make_task

REPOSITORY = make_repository()
ENSEMBLES = Ensembles(REPOSITORY, has_all_tasks=True)


def with_other_probe(repository: Repository = REPOSITORY) -> Repository:
    """The family after a deploy: `probe` goes through tuned-a."""
    probe, colour = make_task("probe"), make_task("colour")
    steps = (*colour.steps[:3], replace(probe.steps[3], inputs=colour.steps[2].outputs))
    return replace(repository, tasks={**repository.tasks, "probe": replace(probe, steps=steps, version="2")})


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("grpc://127.0.0.1:8001", [("127.0.0.1", 8001)]),
        ("grpc://triton", [("triton", 8001)]),
        ("dns:///triton.ns.svc:81", [("triton.ns.svc", 81)]),
        ("grpc://a:1,b:2, grpc://c:3,a:1", [("a", 1), ("b", 2), ("c", 3)]),
        ("grpc://[::1]:5,[fd00::2]", [("::1", 5), ("fd00::2", 8001)]),
    ],
)
def test_urls_name_hosts_and_ports(urls: str, expected: list[tuple[str, int]]) -> None:
    assert parse_urls(urls) == tuple(Address(*pair) for pair in expected)


@pytest.mark.parametrize(
    "urls",
    [
        "",
        "grpc://",
        "triton:8001",
        "http://a:1",
        "grpc://a:x",
        "grpc://a:70000",
        "grpc://a:1/b",
        "grpc://a:1,,b:2",
        "grpc://u@a:1",
    ],
)
def test_what_is_no_url_is_refused_in_a_sentence(urls: str) -> None:
    with pytest.raises(InvalidTritonUrl, match=r"is not the address of a Triton; give that of its gRPC port, such as grpc://127"):
        parse_urls(urls)


def test_grpc_gets_addresses_of_one_kind() -> None:
    four, six = Address("10.0.0.2", 8001), Address("fd00::1", 8002)
    assert target([four, Address("10.0.0.1", 8001)]) == "ipv4:10.0.0.1:8001,10.0.0.2:8001"
    assert target([six]) == "ipv6:[fd00::1]:8002"
    assert target([six, four]) == "ipv6:[::ffff:10.0.0.2]:8001,[fd00::1]:8002"


def test_a_name_stands_for_addresses_of_one_kind() -> None:
    assert asyncio.run(resolve(Address("localhost", 8001))) == {Address("127.0.0.1", 8001)}
    assert asyncio.run(resolve(Address("::1", 8001))) == {Address("::1", 8001)}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True))
def test_one_task_is_its_ensemble_and_several_are_all_tasks(names: Sequence[str]) -> None:
    asked = choose(make_plan(REPOSITORY, names), ENSEMBLES)
    assert asked == Ensemble(names[0] if len(names) == 1 else ALL_TASKS, MAX_ROWS)
    if len(names) > 1:
        assert choose(make_plan(REPOSITORY, names), replace(ENSEMBLES, has_all_tasks=False)) is None


@settings(max_examples=25)
@given(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True))
def test_no_ensemble_is_asked_for_what_it_does_not_compute(names: Sequence[str]) -> None:
    """A plan from before a deploy, while it lasts, and after it; the same holds for a canary's."""
    before, after = ENSEMBLES, Ensembles(with_other_probe(), has_all_tasks=True)
    old, new = make_plan(before.repository, names), make_plan(after.repository, names)
    between = unchanged(before, after)
    assert (choose(old, after) is None) == ("probe" in names) == (choose(new, before) is None)
    assert (choose(old, between) is None) == ("probe" in names)
    assert choose(new, after) == choose(old, before) != None  # noqa: E711 (both are something)


def test_a_canary_and_a_segment_are_run_step_by_step() -> None:
    canary = with_other_probe().tasks["probe"]
    tasks = {**REPOSITORY.tasks, "probe": replace(REPOSITORY.tasks["probe"], canary=Canary(canary, 0.5))}
    catalog = Catalog(replace(REPOSITORY, tasks=tasks))
    ensembles = Ensembles(catalog.repository, has_all_tasks=True)
    variant = catalog.with_canaries(frozenset({"probe"}))
    assert choose(catalog.plan(catalog.find("probe"), ["probe"]), ensembles) == Ensemble("probe", MAX_ROWS)
    assert choose(variant.plan(variant.find("probe"), ["probe"]), ensembles) is None
    assert choose(catalog.plan(catalog.find("trunk"), ["output"]), ensembles) is None


def test_an_ensemble_is_asked_whatever_was_found_out_of_rows_meanwhile() -> None:
    """The plan of a server that has checked them stacks streams; that of the repository as it was read does not."""
    silent = {name: replace(segment, rows="") for name, segment in REPOSITORY.segments.items()}
    ensembles = replace(ENSEMBLES, repository=replace(REPOSITORY, segments=silent))
    for names in (["probe"], list(TASK_NAMES)):
        assert choose(make_plan(REPOSITORY, names), ensembles) == choose(make_plan(REPOSITORY, names), ENSEMBLES)


def test_choices_are_remembered_and_forgotten() -> None:
    choices = Choices(ENSEMBLES, most=2)
    for _ in range(2):
        for name in TASK_NAMES:
            assert choices.of(make_plan(REPOSITORY, [name])) == Ensemble(name, MAX_ROWS)
    assert len(choices._made) <= 2


def test_triton_is_to_serve_every_segment_task_and_all_tasks() -> None:
    models = models_of(REPOSITORY)
    assert models.parts == set(LAYERS)
    assert list(models.ensembles) == [*TASK_NAMES, ALL_TASKS]  # which is loaded last
    assert models.ensemble_files("probe") == {"1/.ensemble": b"", "labels.txt": b"cat\ndog\nemu"}
    assert models.ensemble_files("parity") == {"1/.ensemble": b""}
    assert models.ensemble_files(ALL_TASKS)["colour.labels.txt"] == b"red\ngreen\nblue"
    same = all_tasks_config(reversed(REPOSITORY.tasks.values()))
    assert wiring(same) == wiring(models.ensembles[ALL_TASKS]) != wiring(models_of(with_other_probe()).ensembles[ALL_TASKS])


def refusal(code: str, text: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode[code], grpc.aio.Metadata(), grpc.aio.Metadata(), f"{text} in /models/repo")


@pytest.mark.parametrize(
    ("code", "text", "kind", "http"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses", EngineDown, 503),
        ("UNAVAILABLE", "Socket closed", EngineDown, 503),
        ("CANCELLED", "", EngineDown, 503),
        ("UNAVAILABLE", "Exceeds maximum queue size", TritonBusy, 429),
        ("RESOURCE_EXHAUSTED", "7 rows are waiting and 8 is the limit", TritonBusy, 429),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", EngineError, 500),
        ("UNAVAILABLE", "Request timeout expired", DeadlineExceeded, 504),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, 504),
        ("NOT_FOUND", "Request for unknown model: 'm' is not found", ModelUnavailable, 500),  # of a task: TaskFailed, 503
        ("UNAVAILABLE", "Request for unknown model: 'm' has no available versions", ModelUnavailable, 500),
        ("INVALID_ARGUMENT", "unexpected shape for input", EngineError, 500),
        ("INTERNAL", "onnx runtime error 2", EngineError, 500),
    ],
)
def test_what_a_refusal_means(code: str, text: str, kind: type[EspalierError], http: int) -> None:
    error = translated(refusal(code, text), "m")
    assert (type(error), wire_codes(error).http) == (kind, http)
    assert "/models" not in str(error)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("UNAVAILABLE", "explicit model load / unload is not allowed if polling is enabled", ModelControlOff),
        ("UNAUTHENTICATED", "Loading models needs the token", ModelControlOff),
        ("UNAVAILABLE", "Connection refused", TritonUnreachable),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", TritonUnreachable),
        ("UNIMPLEMENTED", "Method not found!", TritonUnreachable),
        ("INVALID_ARGUMENT", "load failed for model 'm': version 1 is at UNAVAILABLE state", TritonLoadFailed),
        ("INTERNAL", "failed to load 'm', failed to poll from model repository", TritonLoadFailed),
    ],
)
def test_what_a_refusal_to_load_means(code: str, text: str, kind: type[EspalierError]) -> None:
    error = translated_control(refusal(code, text), "m", "grpc://h:1")
    assert type(error) is kind
    assert "/models" not in str(error)


def test_a_full_queue_of_triton_is_one_of_ours() -> None:
    assert isinstance(TritonBusy(), QueueFull)
    assert str(TritonBusy()) == "Too many requests wait in Triton; try again later."


def statistics(**models: dict[int, int]) -> object:
    """Return what Triton would say: for each model, runs by rows, each of 2 ms after a wait of 3 us."""
    response = service_pb2.ModelStatisticsResponse()
    for name, batches in models.items():
        runs = sum(batches.values())
        message = response.model_stats.add(name=name, execution_count=runs, last_inference=1000 + runs)
        for duration, us in (
            ("success", 2_010),
            ("queue", 3),
            ("compute_input", 1),
            ("compute_infer", 2_000),
            ("compute_output", 4),
        ):
            spent = getattr(message.inference_stats, duration)
            spent.count, spent.ns = runs, 1_000 * us * runs
        for rows, times in batches.items():
            message.batch_stats.add(
                batch_size=rows,
                compute_input={"count": times, "ns": 1_000 * times},
                compute_infer={"count": times, "ns": 2_000_000 * times},
                compute_output={"count": times, "ns": 4_000 * times},
            )
    return response


def test_statistics_of_several_tritons_add_up_from_when_they_were_met() -> None:
    sums, names = TritonStatistics(), frozenset({"trunk", "mid"})
    sums.begin("a", statistics(trunk={1: 5}))  # warm-up, and what others had asked for
    sums.begin("b", statistics(trunk={1: 1}))
    sums.update("a", statistics(trunk={1: 5, 4: 2}, late={1: 1}))
    sums.update("b", statistics(trunk={1: 4}))
    found = sums.totals(names)
    assert found.keys() == names
    assert (found["mid"].runs, found["mid"].rows, found["mid"].last_run_ms) == (0, 0, 0)
    trunk = found["trunk"]
    assert (trunk.runs, trunk.rows, trunk.compute.count, trunk.queue.count) == (5, 11, 5, 5)
    assert {rows: batch.runs for rows, batch in trunk.batches.items()} == {1: 3, 4: 2}
    assert (trunk.seconds, trunk.queue.total) == (pytest.approx(0.010), pytest.approx(15e-6))
    assert trunk.compute.counts[2] == 5  # 1 to 2.5 ms
    assert trunk.last_run_ms == 1007
    assert trunk.requests == RequestSeconds(*(pytest.approx(5 * seconds) for seconds in (2_010e-6, 1e-6, 2e-3, 4e-6)))
    assert trunk.batches[4] == BatchStatistics(2, *(pytest.approx(2 * seconds) for seconds in (2e-3, 1e-6, 4e-6)))


def test_a_triton_that_has_started_again_takes_nothing_away() -> None:
    sums, names = TritonStatistics(), frozenset({"trunk", "new"})
    sums.begin("a", statistics(trunk={1: 1}))
    sums.update("a", statistics(trunk={1: 8}))
    sums.begin("a", statistics(trunk={1: 1}))
    assert sums.totals(names)["trunk"].runs == 7
    sums.update("a", statistics(trunk={1: 3}))
    sums.begin("a", statistics(trunk={1: 3}, new={1: 1}), afresh=False)  # one more model was loaded
    sums.update("a", statistics(trunk={1: 4}, new={1: 2}))
    assert {name: done.runs for name, done in sums.totals(names).items()} == {"trunk": 10, "new": 1}


def test_a_model_that_was_unloaded_is_forgotten_and_counts_from_nought_when_it_is_back() -> None:
    sums, names = TritonStatistics(), frozenset({"trunk", "mid"})
    sums.begin("a", statistics(trunk={1: 5}, mid={1: 5}))
    sums.update("a", statistics(trunk={1: 8}, mid={1: 9}))
    sums.begin("a", statistics(trunk={1: 0}, mid={1: 0}))
    sums.update("a", statistics(trunk={1: 1}, mid={1: 1}))
    sums.forget({"mid"})
    assert {name: done.runs for name, done in sums.totals(names).items()} == {"trunk": 4, "mid": 0}
    sums.begin("a", statistics(trunk={1: 2}, mid={1: 7}), afresh=False)
    sums.update("a", statistics(trunk={1: 2}, mid={1: 9}))
    assert {name: done.runs for name, done in sums.totals(names).items()} == {"trunk": 5, "mid": 2}
