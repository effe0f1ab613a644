"""Chains of operators as ONNX Runtime sessions, whole or cut, run as the embedded engine runs segments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from contract.plan import ExecutionPlan, PlanStep
from serving.engines.base import Call, SegmentRun
from serving.engines.embedded import PROVIDERS, session_options
from serving.engines.scheduling.plan_execution import PlanExecution

_Kernel = NDArray[np.float32]


@dataclass(frozen=True)
class ConvChain:
    """Convolutions (weights `kernels`, padded so that the size stays) and ReLUs, from and to rows of `shape`."""

    kernels: Sequence[_Kernel]
    shape: tuple[int, int, int]

    @property
    def macs(self) -> int:
        """Return the MACs of one row."""
        return sum(kernel.size for kernel in self.kernels) * self.shape[1] * self.shape[2]

    def runner(self, segments: int, threads: int | None) -> Callable[[], None]:
        """Return a function that runs one row through the chain, cut into `segments` equal parts."""
        parts = np.array_split(np.arange(len(self.kernels)), segments)
        models = [_model([self.kernels[index] for index in part], self.shape) for part in parts]
        sessions = {
            str(index): ort.InferenceSession(model, session_options(threads), providers=list(PROVIDERS))
            for index, model in enumerate(models)
        }
        steps = tuple(PlanStep(name, ((f"tap-{name}",),), ((f"tap-{int(name) + 1}",),)) for name in sessions)
        plan = ExecutionPlan(("tap-0",), steps, {"output": f"tap-{segments}"})
        rows = np.random.default_rng(0).standard_normal((1, *self.shape)).astype(np.float32)

        def run_segment(name: str, inputs: Sequence[Any]) -> Sequence[Any]:
            results: Sequence[Any] = sessions[name].run(None, {"input": np.ascontiguousarray(inputs[0])})
            return results

        def run() -> None:
            flow = PlanExecution(plan, {"tap-0": rows}, Call(), 0)
            waiting = flow.start()
            while waiting:
                work = waiting.pop()
                results = run_segment(work.segment, work.inputs())
                waiting += flow.finish(work, results, SegmentRun(work.segment, work.rows, 0.0))

        return run


def random_kernels(count: int, channels: int, sides: Sequence[int]) -> list[_Kernel]:
    """Return `count` kernels (channels, channels, side, side), their sides taken in turn from `sides`."""
    rng = np.random.default_rng(0)
    shapes = [(channels, channels, sides[index % len(sides)], sides[index % len(sides)]) for index in range(count)]
    return [(rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32) for shape in shapes]


def take_turns(variants: Mapping[str, Callable[[], None]], rounds: int, warmup: int = 10) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each variant in each round; which comes first changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-warmup, rounds):
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            variants[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in seconds.items()}


def _model(kernels: Sequence[_Kernel], shape: tuple[int, int, int]) -> bytes:
    nodes, weights, source = [], [], "input"
    for index, kernel in enumerate(kernels):
        weights.append(numpy_helper.from_array(kernel, f"weight_{index}"))
        end = "output" if index == len(kernels) - 1 else f"value_{index}"
        pads: Any = [kernel.shape[-1] // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"weight_{index}"], [f"conv_{index}"], pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv_{index}"], [end]))
        source = end
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "chain", rows[:1], rows[1:], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
