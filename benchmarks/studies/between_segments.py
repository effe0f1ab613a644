"""What is lost between segments, one request for all tasks: `python -m benchmarks.studies.between_segments REPOSITORY`.

ONNX Runtime alone, no engine, for each number of threads, in turn: one graph of everything; the trunk and one graph of all behind it;
segments one after another; the trunk, and what is ready side by side, each with an equal part of the threads. Elapsed time, and the
processor's, which other jobs disturb less (threads that wait for each other count in full; with one thread nothing waits).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import onnxruntime as ort

from benchmarks.harness.inputs import random_rows
from benchmarks.harness.machine import describe_machine
from benchmarks.models.merged import write_merged
from contract.dtypes import Array
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository, TensorSpec, read_repository
from contract.system import available_cores
from serving.engines.base import Call, SegmentRun
from serving.engines.onnxruntime.session import PROVIDERS, open_session, run_session, session_options
from serving.engines.scheduling.plan_execution import PlanExecution, ReadyStep

_Run = Callable[[], object]
_Map = Callable[..., Iterable[tuple[ReadyStep, Sequence[Array]]]]


@dataclass(frozen=True)
class BetweenSegments:
    """Medians of one way, milliseconds. over_graph: of the elapsed time, and the processor's, over those of one graph."""

    threads: int
    way: str
    elapsed_ms: float
    processor_ms: float
    over_graph: tuple[float, float]

    def __str__(self) -> str:
        elapsed, processor = self.over_graph
        return (
            f"{self.threads} threads, {self.way:34} {self.elapsed_ms:8.2f} ms ({elapsed:.3f}), "
            f"of the processor {self.processor_ms:8.2f} ms ({processor:.3f})"
        )


def measure(repository: Repository, threads: Sequence[int], rounds: int) -> list[BetweenSegments]:
    """Return every way with each number of threads. The first step of every task has to be their trunk."""
    found: list[BetweenSegments] = []
    with tempfile.TemporaryDirectory(prefix="espalier-between-") as folder:
        for number in threads:
            ways = _ways(repository, number, Path(folder))
            samples: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for turn in range(-2, rounds):
                for way, run in ways.items():
                    began, used = time.perf_counter(), time.process_time()
                    run()
                    if turn >= 0:
                        samples[way].append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - used)))
            middle = {way: tuple(map(median, zip(*values, strict=True))) for way, values in samples.items()}
            graph = middle["one graph"]
            found += [
                BetweenSegments(number, way, elapsed, processor, (elapsed / graph[0], processor / graph[1]))
                for way, (elapsed, processor) in middle.items()
            ]
    return found


def _ways(repository: Repository, threads: int, folder: Path) -> Mapping[str, _Run]:
    names = list(repository.tasks)
    plan = make_plan(repository, names)
    rows = random_rows(repository.tasks[names[0]])
    options = session_options(threads)
    whole = open_session(write_merged(repository, names, folder / f"whole-{threads}.onnx"), options, PROVIDERS)
    behind = behind_the_trunk(repository, plan)
    rest = open_session(write_merged(behind, names, folder / f"rest-{threads}.onnx"), options, PROVIDERS)
    trunk = repository.model_file(plan.steps[0].segment)
    own = {step.segment: open_session(repository.model_file(step.segment), options, PROVIDERS) for step in plan.steps}
    pool = ThreadPoolExecutor(max(1, threads))
    narrow = session_options(1)
    alone = {step.segment: open_session(repository.model_file(step.segment), narrow, PROVIDERS) for step in plan.steps[1:]}
    alone[plan.steps[0].segment] = open_session(trunk, options, PROVIDERS)
    taken = plan.steps[0].inputs[0]

    def trunk_and_rest() -> None:
        taps = dict(
            zip(plan.steps[0].outputs[0], run_session(own[plan.steps[0].segment], [rows[name] for name in taken]), strict=True)
        )
        rest.run(None, {value.name: taps[value.name] for value in rest.get_inputs()})

    return {
        "one graph": lambda: whole.run(None, rows),
        "the trunk, and one graph behind it": trunk_and_rest,
        "segments one after another": lambda: _run(plan, rows, own, map),
        "the trunk, then side by side": lambda: _run(plan, rows, alone, pool.map),
    }


def _run(
    plan: ExecutionPlan,
    rows: Mapping[str, Array],
    sessions: Mapping[str, ort.InferenceSession],
    each: _Map,
) -> None:
    """Run a plan: what is ready, by `each`, then what is ready behind it."""
    execution = PlanExecution(plan, rows, Call(), 0)

    def one(step: ReadyStep) -> tuple[ReadyStep, Sequence[Array]]:
        return step, run_session(sessions[step.segment], step.inputs())

    ready = list(execution.start())
    while ready:
        done = list(each(one, ready))
        ready = [
            after for step, results in done for after in execution.finish(step, results, SegmentRun(step.segment, step.rows, 0.0))
        ]


def behind_the_trunk(repository: Repository, plan: ExecutionPlan) -> Repository:
    """Return the tasks without their first step: they take what it gives."""
    first = plan.steps[0]
    specs = repository.segments[first.segment].outputs
    taps = {name: TensorSpec(name, spec.dtype, spec.shape) for name, spec in zip(first.outputs[0], specs, strict=True)}
    used = {name for step in plan.steps[1:] for stream in step.inputs for name in stream if name in taps}
    inputs = tuple(spec for name, spec in taps.items() if name in used)
    tasks = {name: replace(task, inputs=inputs, steps=tuple(task.steps[1:])) for name, task in repository.tasks.items()}
    return replace(repository, tasks=tasks)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, available_cores()}))
    given = parser.parse_args(arguments)
    found = measure(read_repository(given.repository), given.threads, given.rounds)
    print(f"{given.rounds} rounds; {describe_machine()}, ONNX Runtime {ort.__version__}; in brackets over one graph")
    print("\n".join(map(str, found)))


if __name__ == "__main__":
    main()
