"""One request to a repository of one's own, for one, some and all of its tasks, against the same tasks as separate networks.

All variants answer the same request, one at a time, in one process with the same number of threads, and take turns. "shared" is the
embedded engine as the server uses it, without a server around it. "separate" is an ONNX Runtime session for each task, run one after
another on all threads; "separate, side by side" runs as many at a time as there are threads, which they share out; the faster of the two
is what "shared" is compared with. Separate networks are composed from the repository's own segments, one ONNX graph for each task, for
original files are not kept. Other
engines run the same segments, and networks that are composed in the same way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.framework.benchmark import Benchmark, RunBenchmark
from benchmarks.framework.options import Options, Runs
from benchmarks.framework.result import Result
from benchmarks.harness.noise import RULE, measure_quietly
from benchmarks.models.some_tasks import only_tasks
from benchmarks.repository.case import Case
from benchmarks.repository.choice import ONE, Asked, Choice, choose
from benchmarks.repository.engines import EngineChoice, find_engines
from benchmarks.repository.measure import FEW_BITS, SAME, RepositoryBench
from benchmarks.repository.memory import disk_bytes, resident_bytes
from benchmarks.repository.other_engines import EngineTimes, EngineWork
from benchmarks.repository.precisions import FP32, describe_precisions, segment_precision
from benchmarks.repository.question import ABOUT, Question
from benchmarks.repository.rows import Sizes, choose_sizes, describe_rows, make_rows
from benchmarks.repository.tables import Found, headline, plots, tables
from contract.costs import separate_cost, shared_cost
from contract.errors import EspalierError
from contract.repository import Repository, RepositoryReader
from contract.repository.write import recover
from contract.system import machine_memory_bytes
from serving.engines.onnxruntime.plain import read_plain

_COMPARED = 8  # requests, whose answers by one engine are compared with those by another
_RUNS = Runs(30, 5), Runs(7, 2), Runs(2, 1)


@dataclass(frozen=True, kw_only=True)
class RepositoryBenchmark(Benchmark):
    """The benchmark of one repository. It is in no list, since it needs one."""

    question: Question

    def load(self) -> RunBenchmark:
        """Return the function."""
        return partial(run, self.question)


def repository_benchmark(question: Question) -> RepositoryBenchmark:
    """Return the benchmark of the repository that `question` names."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in question.path.resolve().name)
    return RepositoryBenchmark(name=f"repository-{name}", about=f"{ABOUT} Here: {name}.", module=__name__, question=question)


def read(path: Path) -> Repository:
    """Return the repository at `path`, with models that espalier did not export. Raises RepositoryError, as `espalier inspect` does."""
    recover(path)
    return RepositoryReader(path, read_plain).read()


def run(question: Question, options: Options) -> Result:
    """Measure the repository that `question` names. options.only: engines.

    Raises RepositoryError, UnknownTask, NoSuchSize, SizeOutside, TooManyRowsAtOnce, NoSuchEngine.
    """
    engines, missing = find_engines(options.only)
    whole = read(question.path)
    choice = choose(whole, question.tasks, options.pick(16, 8, 3), machine_memory_bytes(), copies=2 if len(engines) == 1 else 4)
    names = [part.task for part in choice.parts]
    repository = only_tasks(whole, names)
    sizes = choose_sizes(repository.tasks.values(), question)
    precisions = {segment_precision(repository.model_file(name)) for name in repository.segments}
    tolerance = SAME if precisions == {FP32} else FEW_BITS
    options.say(f"Composing {len(names)} separate networks")
    with (
        tempfile.TemporaryDirectory(dir=options.scratch) as folder,
        RepositoryBench(repository, names, engines[0], Path(folder), options.cores, tolerance) as bench,
    ):
        cases = [*_measure(bench, repository, choice, question, sizes, options, Path(folder))]
        work = _engine_work(repository, choice, sizes, question.rows, options.cores)
        others, refused = _measure_others(bench, engines[1:], work, options)
    found = Found(whole, repository, choice, tuple(cases), engines[0], tuple(others))
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    described = describe_rows([repository.tasks[name] for name in cases[-1].asked.tasks], sizes, question.rows)
    return Result(
        headline(found),
        tables(found),
        plots(found),
        (*choice.notes, described, describe_precisions(repository), *missing, *refused, words, *_runs_in_words(options), RULE),
        tuple(dict.fromkeys(case.times.value.wrong for case in cases if case.times.value.wrong)),
        {
            "tasks": names,
            "rows": question.rows,
            "sizes": dict(sizes.named),
            "engines": {other.choice.name: {"one": dict(other.one.value), "most": dict(other.most.value)} for other in others},
            "seconds": [
                {"tasks": list(case.asked.tasks), "runs": case.times.runs, "seconds": dict(case.times.value.seconds)}
                for case in cases
            ],
        },
    )


def _measure(
    bench: RepositoryBench,
    repository: Repository,
    choice: Choice,
    question: Question,
    sizes: Sizes,
    options: Options,
    folder: Path,
) -> Iterator[Case]:
    runs, noise = options.runs_of(*_RUNS), options.watch()
    repeats = options.pick(3, 1, 1)
    weighed = _weighed(choice.requests, options)
    for asked in choice.requests:
        options.say(f"Measuring {_in_words(asked)}")
        feed = make_rows(repository, asked.tasks, sizes, question.rows)
        times = measure_quietly(partial(bench.measure, asked.tasks, feed, runs), noise)
        case = Case(asked=asked, possible=_possible(repository, asked.tasks), times=times)
        if asked in weighed:
            memory = resident_bytes(repository, asked.tasks, bench.networks, feed, folder, repeats)
            case = replace(case, memory=memory, disk=disk_bytes(repository, asked.tasks, bench.networks))
        yield case


def _engine_work(repository: Repository, choice: Choice, sizes: Sizes, rows: int, threads: int) -> EngineWork:
    one, most = _middle(choice.requests).tasks, choice.requests[-1].tasks
    several = make_rows(repository, most, sizes, _COMPARED)
    feeds = [{name: values[row : row + 1] for name, values in several.items()} for row in range(_COMPARED)]
    first, last = ((names, make_rows(repository, names, sizes, rows)) for names in (one, most))
    return EngineWork(repository, list(repository.tasks), threads, first, last, feeds)


def _measure_others(
    bench: RepositoryBench, engines: Sequence[EngineChoice], work: EngineWork, options: Options
) -> tuple[list[EngineTimes], list[str]]:
    """Return what other engines took, and why some could not be measured, a sentence each."""
    found, refused = list[EngineTimes](), list[str]()
    for engine in engines:
        options.say(f"Measuring {engine.name}")
        try:
            found.append(bench.measure_other(engine, work, options.runs_of(*_RUNS), options.watch()))
        except EspalierError as error:
            refused.append(f"{engine.name} is left out: {error}")
    return found, refused


def _middle(requests: Sequence[Asked]) -> Asked:
    alone = [asked for asked in requests if asked.kind == ONE]
    return alone[len(alone) // 2]


def _weighed(requests: Sequence[Asked], options: Options) -> Sequence[Asked]:
    """Return the requests whose memory is measured, in processes that take seconds: of one task the middle one, and those of several."""
    found = [_middle(requests), *(asked for asked in requests if asked.kind != ONE)]
    return found[-options.pick(3, 3, 1) :]


def _possible(repository: Repository, names: Sequence[str]) -> float | None:
    shared = shared_cost(repository, names).macs
    return separate_cost(repository, names).macs / shared if shared else None


def _in_words(asked: Asked) -> str:
    return f"task {asked.tasks[0]}" if asked.kind == ONE else f"{len(asked.tasks)} tasks"


def _runs_in_words(options: Options) -> tuple[str, ...]:
    few = options.pick("", "Few runs of each (--quick): for a first impression.", "Too few runs to say anything.")
    chosen = "" if options.runs is None else f"The runs were set by --runs: {options.runs_of(*_RUNS)}."
    return tuple(words for words in (few, chosen) if words)
