"""A server under load: how much it answers, how fast, and where it stops keeping up.

Closed loop: so many clients, each with one request after the other. Open loop: requests arrive at random (Poisson), whether or not earlier
ones are answered, and a latency counts from the moment at which the request was to be sent. The clients are one process that sends prepared
bytes; a request is one image to one task. The knee is the largest rate at which p99 stays within 5 times that of a single client and at
least 97 % of what is offered is answered in time, as at all smaller rates measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.framework.options import Options
from benchmarks.framework.result import Result
from benchmarks.harness.noise import RULE
from benchmarks.harness.pinning import find_cores, on_cores
from benchmarks.harness.served import segment_cache, served, with_cache
from benchmarks.load.bare import BareEngine, EngineSetting, choose_setting, settings
from benchmarks.load.errors import LoadGenMissing
from benchmarks.load.loadgen import LoadgenResult, Scenario, is_installed
from benchmarks.load.measure import RATES, Extent, Loads, MeasuredLoad, Share, Wall, find_wall, settings_per_s
from benchmarks.load.mixes import MIXES, uniform
from benchmarks.load.senders import clients_on
from benchmarks.load.summary import KneeRule
from benchmarks.load.tables import bare_table, loads_plot, loads_table, scenarios_table, walls_table
from benchmarks.load.wires import Wire, choose_wires
from benchmarks.models.families import RANDOM_WEIGHTS, network_cache, networks
from benchmarks.models.tiny import write_tiny_family
from contract.repository import Repository

_CLIENTS = 16  # of the comparison with the bare engine, and of the mixes
_GOAL = 0.97
_QUIET = ("--log-level", "error")


@dataclass(frozen=True)
class _LoadFindings:
    """All that was measured. bare: answers a second of the bare engine by its setting. setting: that the server had."""

    closed: tuple[MeasuredLoad, ...]
    opened: tuple[MeasuredLoad, ...]
    mixes: tuple[MeasuredLoad, ...]
    walls: tuple[Wall, ...]
    scenarios: tuple[LoadgenResult, ...]
    bare: dict[EngineSetting, float]
    setting: EngineSetting
    shares: tuple[Share, ...]
    notes: tuple[str, ...]


def run(options: Options) -> Result:
    """Measure a family of eight tasks of the scale's first network; on the tiny scale the family of benchmarks.models.tiny.

    Over every wire, or those of `options.only`. Raises NoSuchMeasurement.
    """
    choose_wires(options.only)  # before anything is made
    network = networks(options)[0]
    if options.pick(True, True, False):
        options.say(f"Making 8 tasks of {network.name}")
        what = f"8 tasks of {network.name} that fork at {network.forks[0]}"
        repository = network_cache(options).family(network, network.forks[0], 8).repository
    else:
        what, repository = "four tiny tasks", write_tiny_family(options.scratch / "tiny-load")
    found = _measure(repository, options)
    return _make_result(what, found, options)


def _measure(repository: Repository, options: Options) -> _LoadFindings:
    """Put every load on a server of `repository`, which has the setting that `choose_setting` finds with the bare engine."""
    extent = options.pick(
        Extent(20.0, (1, 2, 4, 8, 16, 32), RATES, 128, 9),
        Extent(1.5, (1, 16), (0.6, 0.9), 64, 2),
        Extent(0.1, (1, 2), (0.5,), 4, 1),
    )
    wires = choose_wires(options.only)
    cores, mix, rule = find_cores(), uniform(list(repository.tasks)), KneeRule()
    noise = options.watch()  # of all cores, the clients' too: they count as ours
    with on_cores(cores.server):
        options.say("Looking for the bare engine's best setting")
        tried = settings(options.threads or cores.usable, options.pick((None, 8), (None,), (None,)))
        cache = segment_cache(options.scratch)
        bare = settings_per_s(repository, mix, tried, cache, _CLIENTS, extent.seconds / 2, turns=options.pick(3, 1, 1))
        setting = choose_setting(bare)
        with (
            served(repository.path, *_QUIET, *setting.server, environment=with_cache(options.scratch)) as server,
            clients_on(cores.clients) as clients,
        ):
            loads = Loads(repository, server, clients, extent, noise)
            closed, opened, walls = _loops(loads, wires, extent, rule, repository, options)
            options.say("Measuring mixes of tasks")
            mixes = tuple(
                loads.closed(wires[0], make(list(repository.tasks)), min(_CLIENTS, max(extent.clients))) for make in MIXES
            )
            scenarios, notes = _scenarios(loads, repository, walls[0], rule, options)
            options.say("Comparing with the bare engine")
            compared = [wire for wire in wires if wire is not Wire.predict] or wires  # decoding is not the engine's
            with BareEngine(repository, setting, cache) as engine:
                shares = tuple(loads.share_of(engine, wire, mix, _CLIENTS) for wire in compared)
    return _LoadFindings(closed, opened, mixes, walls, scenarios, bare, setting, shares, (cores.words, *notes))


def _loops(
    loads: Loads, wires: Sequence[Wire], extent: Extent, rule: KneeRule, repository: Repository, options: Options
) -> tuple[tuple[MeasuredLoad, ...], tuple[MeasuredLoad, ...], tuple[Wall, ...]]:
    mix = uniform(list(repository.tasks))
    closed: list[MeasuredLoad] = []
    for clients in extent.clients:
        options.say(f"Measuring {clients} clients in a closed loop")
        closed += [loads.closed(wire, mix, clients) for wire in wires]  # the wires take turns
    most = {wire: max(found.point.value.per_s for found in closed if found.wire is wire) for wire in wires}
    opened: list[MeasuredLoad] = []
    for rate in extent.rates:
        options.say(f"Measuring an open loop at {rate:.0%} of that")
        opened += [loads.open(wire, mix, rate * most[wire]) for wire in wires]
    return tuple(closed), tuple(opened), tuple(find_wall(wire, closed, opened, rule) for wire in wires)


def _scenarios(
    loads: Loads, repository: Repository, wall: Wall, rule: KneeRule, options: Options
) -> tuple[tuple[LoadgenResult, ...], tuple[str, ...]]:
    """Return MLPerf's scenarios over the wire of `wall`, or why there are none."""
    if not is_installed():
        return (), (str(LoadGenMissing()),)
    offered = {
        Scenario.single: wall.most_per_s,
        Scenario.server: wall.knee_per_s or wall.most_per_s / 2,
        Scenario.offline: wall.most_per_s,
    }
    found = []
    for scenario, per_s in offered.items():
        options.say(f"Running MLPerf's scenario {scenario}")
        limit_ms = rule.slowdown * wall.unloaded_p99_ms
        found.append(loads.scenario(scenario, wall.wire, uniform(list(repository.tasks)), per_s, limit_ms))
    limit = f"{rule.slowdown * wall.unloaded_p99_ms:.1f} ms, the knee's limit"
    return tuple(found), (
        f"MLPerf's scenario Server offers {offered[Scenario.server]:.1f} requests a second; p99 may take {limit}.",
    )


def _make_result(what: str, found: _LoadFindings, options: Options) -> Result:
    """Return what was measured for people."""
    few = options.pick((), ("Seconds for each load (--quick): p99 is of a few dozen requests.",), ("Says nothing of speed.",))
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    everything = (*found.closed, *found.opened, *found.mixes)
    failures = [measured.failures for measured in (*found.closed, *found.mixes)]  # an open loop may be too much, and refused
    failures += [result.failures for result in found.scenarios]
    answers = f"The server had {found.setting}: the engine's own way, unless another one answered over 5 % more without a server."
    return Result(
        _headline(what, found),
        (
            walls_table(found.walls),
            loads_table("Closed loop", found.closed, "Every client sends one request after the other."),
            loads_table("Open loop", found.opened, "Requests arrive at random, at about this rate; latencies count from then."),
            loads_table(
                "Mixes of tasks", found.mixes, f"What is asked for, in a closed loop over {found.walls[0].wire}; one row each."
            ),
            bare_table(found.bare, found.setting, found.shares, _CLIENTS),
            *((scenarios_table(found.scenarios, found.walls[0].wire),) if found.scenarios else ()),
        ),
        (loads_plot(found.opened, found.walls),),
        (f"Measured: {what}, one row each.", RANDOM_WEIGHTS, words, answers, *found.notes, RULE, *few),
        tuple(dict.fromkeys(sentences[0] for sentences in failures if sentences)),
        json.loads(
            json.dumps({"loads": [asdict(one) for one in everything], "shares": [asdict(share) for share in found.shares]})
        ),
    )


def knee_in_words(wall: Wall, opened: Sequence[MeasuredLoad]) -> str:
    """Return the knee in words: nobody knows what lies beyond the largest rate that was tried, or below the smallest."""
    if not wall.knee_per_s:
        least = min(one.point.value.offered_per_s for one in opened if one.wire is wall.wire)
        return f"fewer than {least:.0f}"
    most = max(one.point.value.offered_per_s for one in opened if one.wire is wall.wire)
    return f"{'at least ' if wall.knee_per_s >= most else ''}{wall.knee_per_s:.0f}"


def _headline(what: str, found: _LoadFindings) -> str:
    knees = ", ".join(f"{knee_in_words(wall, found.opened)} over {wall.wire}" for wall in found.walls)
    shares = " and ".join(f"{share.share:.0%} over {share.wire}" for share in found.shares)
    return (
        f"A server of {what} keeps up with so many requests a second: {knees}. With {_CLIENTS} clients it answers {shares} of what the "
        f"bare engine does in the same way; the goal is {_GOAL:.0%}."
    )
