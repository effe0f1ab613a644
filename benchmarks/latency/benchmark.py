"""One request for 1 to 16 tasks: the shared trunk against what one would run without it.

All variants answer the same uint8 image, one request at a time, in one process with the same number of threads, and take turns. "shared"
is the embedded engine as the server uses it, without a server around it. "separate" is an ONNX Runtime session for each task, with the
engine's own options (idle threads do not spin), run one after another on all threads; "separate, side by side" runs as many at a time as
there are threads, which they share out; the faster of the two is what "shared" is compared with. "one graph" is a single ONNX model with
the heads of these tasks; ONNX Runtime computes all of them, whichever are asked for. "torch" and "compiled" run each task's whole network
in inference mode, channels last; torch.compile with static shapes and without freezing, which would compile every task for minutes.
"torch, shared trunk" is what one would write by hand: the trunk once, then each task's own block and head; frozen weights are there once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from benchmarks.framework.options import Options, Runs
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.noise import RULE, measure_quietly
from benchmarks.latency.case import LatencyCase
from benchmarks.latency.engines import BF16, MOST, EngineCase, engine_tables, other_engines
from benchmarks.latency.precision.kernels import with_kernels
from benchmarks.latency.precision.trained import learn
from benchmarks.latency.precision_tables import NOTES, PrecisionChange, precision_change, precision_tables
from benchmarks.latency.variants import BY_HAND, ONE_TASK, LatencyBench, open_bench
from benchmarks.models.families import RANDOM_WEIGHTS, TimmNetwork, choose_networks, network_cache
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.repository.engines import EngineChoice
from contract.costs import separate_cost, shared_cost

_VARIANTS = ("shared", SEPARATE, SIDE_BY_SIDE, "one graph", BY_HAND, "torch", "compiled")
_GOAL = 0.95
_RUNS = Runs(30, 5), Runs(5, 1), Runs(2, 1)


def run(options: Options) -> Result:
    """Measure every network of the scale, or those of `options.only`, at each of its forks.

    Raises NoSuchNetwork; PrecisionUnavailable where no other precision that was asked for can be measured.
    """
    engines, missing = other_engines(options.precisions)
    precisions, without = with_kernels(options.precisions, elsewhere=any(engine.precision == BF16 for engine in engines))
    if without:  # else what the benchmarks of a run share stays shared
        options = replace(options, precision=",".join(precisions))
    chosen = choose_networks(options)
    counts = options.pick((1, 2, 4, 8, 16), (1, 8), (1, 2))
    found: list[LatencyCase] = []
    notes = [*without, *missing]
    on_engines: list[EngineCase] = []
    changes: list[PrecisionChange] = []
    for network in chosen:
        for fork in network.forks:
            options.say(f"Making {max(counts)} tasks of {network.name} that fork at {fork}")
            with_torch = fork == network.forks[0]
            bench = open_bench(network, fork, max(counts), options, with_torch=with_torch)
            notes += bench.notes
            weights = sum(segment.weight_bytes for segment in bench.repository.segments.values())
            changes += [precision_change(network.name, fork, family, weights) for family in bench.precise]
            with bench:
                found += _measure(bench, network, fork, counts, options)
                on_engines += _measure_engines(bench, network, fork, engines, options)
            if not with_torch:
                network_cache(options).forget(network, fork)  # the first fork's family is for other benchmarks, too
    several = [measured for measured in found if measured.tasks > 1]
    learnt, refused = learn(options, engines)
    notes += [*refused, *(NOTES if changes else ())]
    return Result(
        _headline(several, options),
        (_speedups(found), _times(found), *engine_tables(on_engines), *precision_tables(found, changes, learnt)),
        (_share_plot(several), *(_time_plot(found, network) for network in chosen)),
        (RANDOM_WEIGHTS, *_explanations(options), _against_hand(several), *dict.fromkeys(notes), RULE),
        tuple(bench_failure for bench_failure in dict.fromkeys(m.times.value.wrong for m in found) if bench_failure),
        {
            "seconds": [_raw(measured) for measured in found],
            "engines": [
                {
                    "network": case.network,
                    "fork": case.fork,
                    "engine": case.times.choice.name,
                    "most": dict(case.times.most.value),
                }
                for case in on_engines
            ],
        },
    )


def _measure(
    bench: LatencyBench, network: TimmNetwork, fork: str, counts: Sequence[int], options: Options
) -> Iterator[LatencyCase]:
    runs = options.runs_of(*_RUNS)
    noise = options.watch()
    for count in counts:
        options.say(f"Measuring {network.name}, fork at {fork}, {count} tasks")
        names = bench.names[:count]
        times = measure_quietly(lambda names=names: bench.measure(names, runs.rounds, runs.warmup), noise)  # type: ignore[misc]
        yield LatencyCase(network=network.name, fork=fork, tasks=count, predicted=_possible(bench, names), times=times)


def _measure_engines(
    bench: LatencyBench, network: TimmNetwork, fork: str, engines: Sequence[EngineChoice], options: Options
) -> Iterator[EngineCase]:
    names = bench.names[:MOST]
    for engine in engines:
        options.say(f"Measuring {network.name}, fork at {fork}, {len(names)} tasks on {engine.name}")
        times = bench.measure_engine(engine, names, options.runs_of(*_RUNS), options.watch())
        yield EngineCase(network.name, fork, len(names), _possible(bench, names), times)


def _possible(bench: LatencyBench, names: Sequence[str]) -> float:
    return separate_cost(bench.repository, names).macs / shared_cost(bench.repository, names).macs


def _headline(found: Sequence[LatencyCase], options: Options) -> str:
    shares = [measured.share for measured in found]
    plain = [measured.share_one_after_another for measured in found]
    goal = f"{sum(share >= _GOAL for share in shares)} of {len(shares)} cases reach the goal of {_GOAL:.0%}."
    noisy = sum(measured.times.noisy for measured in found)
    doubt = f" While {noisy} of them were measured, the machine was noisy." if noisy else ""
    return (
        f"A shared trunk reaches {min(shares):.0%} to {max(shares):.0%} (median {median(shares):.0%}) of the speed-up that the arithmetic "
        f"allows over separate networks, one after another or side by side, whichever is faster; over one after another "
        f"{min(plain):.0%} to {max(plain):.0%} (median {median(plain):.0%}).{options.pick(f' Of the former, {goal}', '', '')}{doubt}"
    )


def _explanations(options: Options) -> tuple[str, ...]:
    few = options.pick(
        "", "Few runs of each (--quick): for a first impression, not for publication.", "Too few runs to say anything."
    )
    words = (
        " ".join((__doc__ or "").strip().split("\n\n")[1].split()),
        "Each task tunes one block, or none (fork at head), and has a head of 100 classes; frozen blocks behind the tuned one are computed "
        "for each task. Possible: MACs of separate networks over MACs of the shared request.",
        "Branches one by one: the speed-up if a request were the trunk and then one branch after another, each as long as in a request "
        "for one task. Measured over that: above 100 % where branches gain by running side by side, below where many segments cost time.",
    )
    if options.runs is not None:
        few = f"{few} The runs were set by --runs: {options.runs_of(*_RUNS)}.".strip()
    return (*words, few) if few else words


def _against_hand(found: Sequence[LatencyCase]) -> str:
    times = [measured.times.value.seconds for measured in found]
    ratios = [median(seconds[BY_HAND]) / median(seconds["shared"]) for seconds in times]
    return f"A shared trunk written by hand in torch takes {min(ratios):.2f} to {max(ratios):.2f} times as long as the engine's."


def _row(measured: LatencyCase) -> dict[str, Cell]:
    variants = {variant: measured.timing(variant) for variant in (*_VARIANTS, ONE_TASK)}
    graph = measured.timing("one graph")
    return {
        "network": measured.network,
        "fork": measured.fork,
        "tasks": measured.tasks,
        "predicted": measured.predicted,
        "baseline": measured.baseline,
        "one_by_one": measured.one_by_one,
        "speedup": measured.speedup,
        "share": measured.share,
        "share_one_after_another": measured.share_one_after_another,
        "over_one_by_one": measured.speedup / measured.one_by_one,
        "over_graph": graph.median_ms / variants["shared"].median_ms if graph and variants["shared"] else None,
        **measured.times.cells,
        **variants,
    }


_WHICH = (Column("network", "network"), Column("fork", "fork"), Column("tasks", "tasks", Unit.number))
_NOISE = Column("noise", "")


def _speedups(found: Sequence[LatencyCase]) -> Table:
    columns = (
        *_WHICH,
        Column("predicted", "possible", Unit.ratio),
        Column("one_by_one", "branches one by one", Unit.ratio),
        Column("speedup", "measured", Unit.ratio),
        Column("share", "share of the possible", Unit.share),
        Column("share_one_after_another", "the same over one after another", Unit.share),
        Column("over_one_by_one", "measured over one by one", Unit.share),
        Column("baseline", "over"),
        _NOISE,
    )
    caption = (
        f"Speed-up of the shared trunk over separate networks, one after another or side by side, whichever is faster. The goal is a share "
        f"of {_GOAL:.0%}."
    )
    return Table("Speed-up", columns, tuple(_row(measured) for measured in found), caption)


def _times(found: Sequence[LatencyCase]) -> Table:
    columns = (*_WHICH, *(Column(variant, variant, Unit.ms) for variant in _VARIANTS), _NOISE)
    runs = len(found[0].times.value.seconds["shared"])
    caption = (
        f"One request, median (quartiles) of {runs} runs in turn. Whole networks in torch do not depend on the fork: they were measured "
        "at one. A single network has nothing to run side by side with."
    )
    return Table("Time of one request", columns, tuple(_row(measured) for measured in found), caption)


def _share_plot(found: Sequence[LatencyCase]) -> Plot:
    series = []
    for network, fork in dict.fromkeys((measured.network, measured.fork) for measured in found):
        group = [measured for measured in found if (measured.network, measured.fork) == (network, fork)]
        predicted, speedups = tuple(m.predicted for m in group), tuple(m.speedup for m in group)
        series.append(Series(f"{network.partition('_')[0]}, {fork}", predicted, speedups))
    most = max(measured.predicted for measured in found)
    series.append(Series("all that is possible", (1.0, most), (1.0, most), style=Style.dashed))
    detail = f"Each line is a fork, each point a number of tasks ({', '.join(str(n) for n in sorted({m.tasks for m in found}))})."
    title = "How much of the possible speed-up is reached"
    return Plot("latency-share", title, detail, "speed-up by MACs", "measured speed-up", tuple(series), log="xy")


def _time_plot(found: Sequence[LatencyCase], network: TimmNetwork) -> Plot:
    group = [measured for measured in found if (measured.network, measured.fork) == (network.name, network.forks[0])]
    series = []
    for variant in _VARIANTS:
        timings = [(measured.tasks, timing) for measured in group if (timing := measured.timing(variant)) is not None]
        if timings:
            series.append(Series.of_timings(variant, [tasks for tasks, _ in timings], [timing for _, timing in timings]))
    detail = f"Tasks fork at {network.forks[0]}; median of runs in turn, with quartiles."
    title = f"{network.name}: one request for all tasks"
    return Plot(f"latency-{network.name}", title, detail, "tasks", "milliseconds", tuple(series))


def _raw(measured: LatencyCase) -> dict[str, object]:
    times = measured.times
    which = {
        "network": measured.network,
        "fork": measured.fork,
        "tasks": measured.tasks,
        "runs": times.runs,
        "drift": times.drift,
        "others": times.others,
    }
    return {**which, "trunk_s": times.value.trunk_s, "branch_s": times.value.branch_s, "seconds": dict(times.value.seconds)}
