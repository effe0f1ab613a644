"""What deploys do to the requests of other tasks: `python -m benchmarks.deploy.timeline REPOSITORY`.

An `espalier serve` in a process of its own gets steady load on all tasks but one: an open loop, requests at a fixed rate over connections
that are kept alive, latencies counted from when each was due. After a quiet time rounds of two kinds take turns, `--deploys` of each: in
the one the task is unloaded and loaded again through model control, and asked once; in the other it is only asked, at the same moment.
Then it is quiet again. With four cores or more the server has its own and the client has its own; with fewer they share them.
Quiet are the requests of both quiet times; "deploys" and "asked only" are all requests that were due in rounds of that kind; "during a
change" are those that were due or unanswered while a load or an unload was under way. Exit code 1 where a request failed or an answer
changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.deploy.results import Action, TaskChange, Timeline, TimelineOptions, TimelineRound, describe
from benchmarks.harness.http_wire import HttpConnection, binary_body, infer_bytes
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.open_loop import Ask, OpenLoop, find_capacity
from benchmarks.harness.pinning import find_cores, on_cores
from benchmarks.harness.served import ServerProcess, served
from contract.dtypes import NUMPY_DTYPES
from contract.repository import Repository, Task, read_repository
from serving.client import control_model

_CALIBRATION_S = 3.0
_SETTLE_S = 1.0  # after the calibration, before the load that counts


def measure(repository: Repository, options: TimelineOptions) -> Timeline:
    """Return the timeline of a server of `repository`."""
    token = secrets.token_hex(16)
    arguments = ["--threads", str(options.threads)] if options.threads else []
    arguments += [] if options.cached else ["--no-segment-cache"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {"ESPALIER_ADMIN_TOKEN": token, "XDG_CACHE_HOME": cache}
        cores, server_options = find_cores(), (*arguments, "--log-level", "error")
        with (
            on_cores(cores.server),
            served(repository.path, *server_options, environment=environment) as server,
            on_cores(cores.clients),
        ):
            return asyncio.run(_measure(repository, options, server, token))


async def _measure(repository: Repository, options: TimelineOptions, server: ServerProcess, token: str) -> Timeline:
    address = server.http_host_port
    asks = {name: await make_ask(address, task) for name, task in repository.tasks.items()}
    others = [ask for name, ask in asks.items() if name != options.task]
    rate = options.rate or options.share * await find_capacity(address, others, options.connections, _CALIBRATION_S)
    await asyncio.sleep(_SETTLE_S)
    load = OpenLoop(address, others, rate, options.connections)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(options.quiet_s)
    changes: list[TaskChange] = []
    rounds: list[TimelineRound] = []
    for number in range(2 * options.deploys):
        start_s = load.now_s
        actions: tuple[Action | None, ...] = (None, "ask") if number % 2 else ("unload", "load")
        for action in actions:
            if action is not None:
                changes.append(await _change(load, server, asks[options.task], action, token))
            await asyncio.sleep(options.pause_s)
        rounds.append(TimelineRound(not number % 2, start_s, load.now_s))
    await asyncio.sleep(options.quiet_s)
    load.stop()
    await running
    requests = tuple(sorted(load.requests, key=lambda request: request.due_s))
    return Timeline(options, rate, requests, tuple(changes), tuple(rounds))


async def make_ask(address: tuple[str, int], task: Task) -> Ask:
    """Return a request of one row for `task`, and the answer to it."""
    (spec,) = task.inputs
    rows = np.random.default_rng(0).integers(0, 256, (1, *spec.shape)).astype(NUMPY_DTYPES[spec.dtype])
    request = infer_bytes(task.name, *binary_body(spec, rows))
    connection = await HttpConnection.open(address)
    reply = await connection.ask(request)
    await connection.close()
    if reply.status != 200:
        raise RuntimeError(f"Task {task.name!r} does not answer: {reply.body!r}")
    return Ask(task.name, request, reply.tensors)


async def _change(load: OpenLoop, server: ServerProcess, ask: Ask, action: Action, token: str) -> TaskChange:
    start_s, started = load.now_s, time.perf_counter()
    if action != "ask":
        await asyncio.to_thread(control_model, f"http://{server.http_address}", ask.task, action, token)
    seconds = time.perf_counter() - started
    if action == "unload":
        return TaskChange(action, start_s, seconds)
    await check_answer(server, ask)
    return TaskChange(action, start_s, seconds, time.perf_counter() - started)


async def check_answer(server: ServerProcess, ask: Ask) -> None:
    """Ask over a new connection. Raises RuntimeError when the answer is another than expected."""
    connection = await HttpConnection.open(server.http_host_port)
    reply = await connection.ask(ask.request)
    await connection.close()
    if reply.status != 200 or not ask.is_right(reply.tensors):
        raise RuntimeError(f"Task {ask.task!r} does not answer as before after it was loaded: {reply.status}")


def main() -> None:
    """Measure, print, and write the timeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--task", help="that comes and goes; default: the last")
    parser.add_argument("--deploys", type=int, default=TimelineOptions.deploys)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests per second; default: --share of what the server answers"
    )
    parser.add_argument("--share", type=float, default=TimelineOptions.share)
    parser.add_argument("--connections", type=int, default=TimelineOptions.connections)
    parser.add_argument("--quiet-s", type=float, default=TimelineOptions.quiet_s, help="before the deploys, and again after them")
    parser.add_argument("--pause-s", type=float, default=TimelineOptions.pause_s, help="after each change")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-cache", action="store_true", help="load every time as if the segments had never been seen")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", action="append", default=[], help=".svg or .png; again for more")
    given = parser.parse_args()
    repository = read_repository(given.repository)
    options = TimelineOptions(
        given.task or list(repository.tasks)[-1],
        given.deploys,
        given.rate,
        given.share,
        given.connections,
        given.quiet_s,
        given.pause_s,
        given.threads,
        not given.no_cache,
    )
    timeline = measure(repository, options)
    lines = describe(timeline)
    print("\n".join(lines))
    if given.json:
        machine = {"machine": describe_machine(), "onnxruntime": ort.__version__}
        given.json.write_text(json.dumps({**machine, "summary": lines, **asdict(timeline)}))
    if given.plot:
        from benchmarks.deploy.plot import write_plot

        for file in given.plot:
            write_plot(timeline, file)
    raise SystemExit(1 if timeline.failed or timeline.changed else 0)


if __name__ == "__main__":
    main()
