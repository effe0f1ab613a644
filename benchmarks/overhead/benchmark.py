"""What being asked over a network adds to the engine: `benchmarks.overhead.measure` on a network of real size and on one that is tiny.

One client sends one request after the other with tritonclient, over binary HTTP and over gRPC, to a server in a process of its own; the
bare engine runs the same segments in the client's process; the three take turns. What a request takes longer is the server, the network
and tritonclient, whose own work is a good part of it where the network is tiny. Then 16 clients that do as little as can be done.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.framework.options import Options
from benchmarks.framework.result import Cell, Column, Result, Table, Unit
from benchmarks.harness.noise import RULE, Measurement, measure_quietly
from benchmarks.harness.pinning import find_cores
from benchmarks.models.families import network_cache, networks
from benchmarks.models.tiny import write_tiny_family
from benchmarks.overhead.measure import Overhead, measure

_TINY = "four layers of 16 numbers"


def run(options: Options) -> Result:
    """Measure one task of each network."""
    rounds, seconds = options.pick((200, 5.0), (20, 2.0), (2, 0.2))
    noise = options.watch()

    def quietly(repository: Path, task: str, of_rounds: int) -> Measurement[Overhead]:
        options.say(f"Measuring {task} of {repository.name}")
        how = partial(measure, repository, task, threads=options.threads, seconds=seconds, clients=16)
        return measure_quietly(lambda: how(rounds=of_rounds), noise)

    tiny = write_tiny_family(options.scratch / "tiny-family")
    found = {_TINY: quietly(tiny.path, "probe", rounds)}
    if options.pick(True, True, False):
        network = networks(options)[0]
        family = network_cache(options).family(network, network.forks[0], 4)
        found[network.name] = quietly(family.repository.path, next(iter(family.networks)), max(rounds // 2, 1))
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    return Result(_headline(found[_TINY].value), (_table(found),), notes=(words, find_cores().words, RULE))


def _headline(tiny: Overhead) -> str:
    return (
        f"Server and client library add {tiny.http_adds_ms:.2f} ms over binary HTTP and {tiny.grpc_adds_ms:.2f} ms over gRPC to a tiny "
        f"network, of which the server answers {tiny.http_per_s:,.0f} and {tiny.grpc_per_s:,.0f} requests a second."
    )


def _table(found: dict[str, Measurement[Overhead]]) -> Table:
    columns = (
        Column("network", "network"),
        Column("bare", "bare engine", Unit.ms),
        Column("http", "binary HTTP", Unit.ms),
        Column("http_adds_ms", "adds", Unit.ms),
        Column("grpc", "gRPC", Unit.ms),
        Column("grpc_adds_ms", "adds", Unit.ms),
        Column("http_per_s", "HTTP, 16 clients", Unit.per_s),
        Column("grpc_per_s", "gRPC, 16 clients", Unit.per_s),
        Column("noise", ""),
    )
    rows = tuple(_row(name, measurement) for name, measurement in found.items())
    runs = " and ".join(f"{measurement.value.bare.runs}" for measurement in found.values())
    return Table("What server and client add", columns, rows, f"Median (quartiles) of {runs} runs in turn; requests per second.")


def _row(name: str, measurement: Measurement[Overhead]) -> dict[str, Cell]:
    one = measurement.value
    return {
        "network": name,
        "bare": one.bare,
        "http": one.http,
        "http_adds_ms": one.http_adds_ms,
        "grpc": one.grpc,
        "grpc_adds_ms": one.grpc_adds_ms,
        "http_per_s": one.http_per_s,
        "grpc_per_s": one.grpc_per_s,
        **measurement.cells,
    }
