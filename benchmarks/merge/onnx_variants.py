"""The ways to run several streams in ONNX Runtime, with the embedded engine's own options, and in the engine itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

from benchmarks.merge.equality import Outputs
from benchmarks.merge.torch_variants import FORKED, SEPARATE, STACKED
from benchmarks.models.separate import SideBySide, open_network
from benchmarks.models.synthetic import Family
from contract.dtypes import Array
from contract.plan import ExecutionPlan, make_plan
from exporter.torch.export import bind, trace
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

SIDE_BY_SIDE = f"{SEPARATE}, side by side"

Run = Callable[[], Outputs]
AsyncRun = Callable[[], Awaitable[Outputs]]


def open_modules(modules: Sequence[nn.Module], rows: Tensor, threads: int) -> list[ort.InferenceSession]:
    """Return optimised sessions of `modules`, which have one architecture, for batches of any size of what `rows` has."""
    traced = trace(modules[0], torch.cat([rows[:1], rows[:1]]))  # a batch of one would be written into the graph
    models = [ir.to_proto(bind(traced, module.state_dict())).SerializeToString() for module in modules]
    return [open_network(model, threads) for model in models]


def suffix_variants(session: ort.InferenceSession, rows: Sequence[Tensor]) -> dict[str, Run]:
    """Return what `torch_variants.suffix_variants` does. Stacking and taking apart again count, as in the engine."""
    arrays = [stream.numpy() for stream in rows]
    return {
        "apart": lambda: [_run(session, array) for array in arrays],
        "stacked": lambda: np.split(_run(session, np.concatenate(arrays)), len(arrays)),
    }


def block_variants(tuned: Sequence[Sequence[nn.Module]], grouped: nn.Module, rows: Tensor, threads: int) -> dict[str, Run]:
    """Return what `torch_variants.block_variants` does. grouped: all of them as one module."""
    sessions = open_modules([nn.Sequential(*blocks) for blocks in tuned], rows, threads)
    (whole,) = open_modules([grouped], rows, threads)
    array, count = rows.numpy(), len(tuned)

    def split() -> Outputs:
        joined = _run(whole, array)
        streams = joined.reshape(len(joined), count, -1, *joined.shape[2:]).swapaxes(0, 1)
        return [np.ascontiguousarray(stream) for stream in streams]  # as the next segment takes it

    return {"apart": lambda: [_run(session, array) for session in sessions], "grouped": split}


@contextmanager
def engine_variants(family: Family, rows: Array, threads: int) -> Iterator[tuple[asyncio.Runner, Mapping[str, AsyncRun]]]:
    """Yield the ways to answer a request of `rows` for all tasks, the baseline first, and the runner of the event loop that they need.

    Separate networks one after another, in a thread as the engine has it, and side by side where there are threads for it; and the
    engine as the server has it, which runs a frozen suffix once for all streams, or for comparison on at most as many rows at a time as
    the request has. Without the former where the exporter found no suffix that is worth a cut.
    """
    sessions = [open_network(file, threads) for file in family.networks.values()]
    store = SessionStoreOptions(threads, provider="cpu", cache_folder=family.repository.path.with_name("segments"))
    names = list(family.networks)
    plan = make_plan(family.repository, names)
    options = {FORKED: EngineOptions(store, max_batch_rows=len(rows))}
    if any(len(step.inputs) > 1 for step in plan.steps):
        options[STACKED] = EngineOptions(store)
    engines = {name: EmbeddedEngine(family.repository, options=option) for name, option in options.items()}
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as worker, closing(SideBySide(family.networks, threads)) as several:
        side_by_side = several.open(names)
        apart = {SEPARATE: lambda: [_run(session, rows) for session in sessions]}
        if side_by_side is not None:
            feed = {sessions[0].get_inputs()[0].name: rows}
            apart[SIDE_BY_SIDE] = lambda: side_by_side(feed)
        for engine in engines.values():
            runner.run(engine.start())
        try:
            asked = {name: partial(_ask, engine, plan, rows) for name, engine in engines.items()}
            yield runner, {**{name: partial(_run_in, worker, run) for name, run in apart.items()}, **asked}
        finally:
            for engine in engines.values():
                runner.run(engine.aclose())


async def _run_in(worker: Executor, run: Run) -> Outputs:
    return await asyncio.get_running_loop().run_in_executor(worker, run)


async def _ask(engine: EmbeddedEngine, plan: ExecutionPlan, rows: Array) -> Outputs:
    answer = await engine.infer(plan, {plan.inputs[0]: rows})
    return [answer.outputs[name] for name in plan.outputs]


def _run(session: ort.InferenceSession, rows: Array) -> Array:
    found: Array = session.run(None, {session.get_inputs()[0].name: rows})[0]
    return found
