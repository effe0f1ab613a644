"""The same work on what one would pick instead: `benchmarks.peers` on eight late tasks of a ResNet-50.

Every peer is started; all but the one whose turn it is are put to sleep. First one client asks for 1, 2 and all tasks, then several clients
do at once. The same image, the same client, the same ONNX Runtime and threads for all; answers are compared before. How each is set up, and
to whom that is unfair: docs/measurements/peers.md.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmarks.framework.errors import LinuxOnly
from benchmarks.framework.options import Options, Scale
from benchmarks.framework.result import Result
from benchmarks.harness.noise import RULE
from benchmarks.harness.pinning import find_cores
from benchmarks.models.families import RANDOM_WEIGHTS, network_cache, networks
from benchmarks.models.tiny import write_tiny_forks
from benchmarks.peers.measure import MeasurePlan, measure
from benchmarks.peers.rivals import choose_rivals
from benchmarks.peers.server import SEPARATE, SHARED, Rival
from benchmarks.peers.tables import make_result
from benchmarks.peers.work import Work, prepare_work

_TASKS = 8
_OURS = "espalier"
_HAND = "FastAPI by hand"
_QUICK = ((_OURS, SHARED), (_HAND, SEPARATE), (_HAND, SHARED), ("LitServe", SHARED))  # fast to start; what others need, small
_TINY = ((_OURS, SHARED), (_HAND, SHARED))


def run(options: Options) -> Result:
    """Measure every rival, or those of `options.only`; on the quick scale few that start fast. Raises NoSuchRival, LinuxOnly."""
    if sys.platform != "linux":
        raise LinuxOnly("peers")
    rivals, plan = _rivals(options), plan_of(options)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder, _orderly_end():
        work = _work(options, Path(folder))
        rows = measure(work, rivals, plan, options.watch(), options.say)
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    return make_result(rows, plan, (RANDOM_WEIGHTS, words, RULE))


def _rivals(options: Options) -> list[Rival]:
    rivals = choose_rivals(options.only)
    if options.only or options.scale is Scale.full:
        return rivals
    few = options.pick((), _QUICK, _TINY)
    return [rival for rival in rivals if (rival.name, rival.variant) in few]


def plan_of(options: Options) -> MeasurePlan:
    """Return how much the scale measures, in as many turns as the wanted number of runs takes."""
    counts, cores = (1, 2, _TASKS), find_cores()
    threads = options.threads or cores.usable
    plan = options.pick(
        MeasurePlan(counts, threads=threads, cores=cores),
        MeasurePlan(counts, turns=2, runs=3, seconds=1.0, throughput_turns=1, threads=threads, cores=cores, ready_s=120),
        MeasurePlan(
            (1, 2),
            turns=2,
            runs=2,
            clients=2,
            seconds=0.1,
            throughput_turns=1,
            threads=threads,
            cores=cores,
            ready_s=60,
            room_bytes=0,
        ),
    )
    return plan if options.runs is None else replace(plan, turns=-(-options.runs // plan.runs))


def _work(options: Options, folder: Path) -> Work:
    if options.scale is Scale.tiny:
        return prepare_work(*write_tiny_forks(folder, 2), folder / "models")
    network = networks(options)[0]
    options.say(f"Making {_TASKS} tasks of {network.name}")
    family = network_cache(options).family(network, network.forks[0], _TASKS)
    return prepare_work(family.repository, family.networks, folder / "models")


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Make SIGTERM an exit like any other: it would leave servers behind, asleep."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
