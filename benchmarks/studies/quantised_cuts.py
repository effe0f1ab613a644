"""What a border inside a network in int8 costs, by where it lies: `python -m benchmarks.studies.quantised_cuts`.

A network of timm with random weights, and a second one with its last block tuned, are quantised by ONNX Runtime's own tool (QDQ, weights
by channel, calibrated on scikit-learn's digits) and exported. The segments of the second are run one after the other as they are, with
each border moved behind its DequantizeLinear (where it was before version 3 of the digests), and in front of its QuantizeLinear; beside
them the whole. One row; medians of processor time over rounds, each in an order of its own, so that none always finds its weights in the
caches.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import timm
import torch
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_digits

from contract.dtypes import Array
from contract.system import processor_flags
from exporter.export import ExportOptions, export_repository
from exporter.graph.chain import Tap
from exporter.graph.extract import extract_segment
from exporter.graph.passes.canonical import canonicalise
from exporter.precision.quantise import reduces_range
from exporter.sharing.plan import PlannedStep
from exporter.sources.onnx_file import load_onnx
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import NetworkExporter
from serving.engines.embedded import PROVIDERS, session_options

_SEED, _CALIBRATION = 7, 16


class _Digits:
    """What ONNX Runtime calls a CalibrationDataReader."""

    def __init__(self, size: int) -> None:
        self._rows = iter(_digits(size, _CALIBRATION))

    def get_next(self) -> dict[str, Array] | None:
        row = next(self._rows, None)
        return None if row is None else {"image": row[np.newaxis]}


def _digits(size: int, count: int) -> Array:
    """Return float32 (count, 3, size, size), each pixel of a digit a square."""
    side = -(-size // 8)
    pictures = load_digits().images[:count].astype(np.float32) / 8 - 1
    large = np.kron(pictures, np.ones((1, side, side), np.float32))[:, :size, :size]
    return np.repeat(large[:, np.newaxis], 3, axis=1)


def _quantised(network: torch.nn.Module, size: int, folder: Path, name: str) -> Path:
    model = NetworkExporter(size, size, "none").export(network, None, name)
    ir.save(model, folder / f"{name}.float.onnx")
    quantize_static(
        folder / f"{name}.float.onnx",
        folder / f"{name}.onnx",
        _Digits(size),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduces_range(processor_flags(), platform.machine()),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return folder / f"{name}.onnx"


def _family(name: str, block: str, size: int, folder: Path) -> dict[str, Path]:
    torch.manual_seed(_SEED)
    backbone = timm.create_model(name).eval()
    tuned = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in tuned.get_submodule(block).parameters():
            parameter.mul_(1.05)
    return {"first": _quantised(backbone, size, folder, "first"), "second": _quantised(tuned, size, folder, "second")}


def _runner(models: Sequence[Any], rows: Array, threads: int | None) -> Callable[[], None]:
    sessions = [InferenceSession(model, session_options(threads), providers=list(PROVIDERS)) for model in models]

    def run() -> None:
        tensor = rows
        for session in sessions:
            (tensor,) = session.run(None, {session.get_inputs()[0].name: tensor})

    return run


def _moved(model: ir.Model, operator: str, forward: bool) -> Callable[[Tap], Tap]:
    """Return what gives, for a tap that an `operator` stands behind (or in front of), the tensor on its other side."""

    def move(tap: Tap) -> Tap:
        (value,) = [value for value in _values(model) if value.name == tap.name]
        producer = value.producer()
        nodes = [*value.consumers()] if forward else [producer] if producer is not None else []
        found = [node for node in nodes if node.op_type == operator]
        other = (found[0].outputs[0] if forward else found[0].inputs[0]) if found else None
        if other is None:
            return tap
        return Tap(str(other.name), str(other.name), ir.DataType.FLOAT.name, tap.shape)

    return move


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _cut(model: ir.Model, steps: Sequence[PlannedStep], move: Callable[[Tap], Tap]) -> list[bytes]:
    """Return the segments of `steps` with their borders moved."""
    models = [
        extract_segment(model, str(index), [*map(move, step.inputs)], [*map(move, step.outputs)])
        for index, step in enumerate(steps)
    ]
    return [ir.to_proto(model).SerializeToString() for model in models]


def _in_any_order(variants: Mapping[str, Callable[[], None]], rounds: int, warmup: int = 10) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round."""
    order, seconds = np.random.default_rng(_SEED), {name: list[float]() for name in variants}
    for turn in range(-warmup, rounds):
        for name in order.permutation([*variants]):
            started = time.process_time()
            variants[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - started)
    return seconds


def _measure(name: str, block: str, size: int, rounds: int, threads: int | None) -> dict[str, tuple[float, int]]:
    """Return for the whole and each kind of border the median milliseconds of one row, and the bytes that cross between segments."""
    with tempfile.TemporaryDirectory() as folder:
        files = _family(name, block, size, Path(folder))
        loaders = {task: (lambda file=file: TaskModel(load_onnx(file), file=file)) for task, file in files.items()}
        report = export_repository(Sources(loaders), ExportOptions(Path(folder) / "repository"))
        steps, model = report.plan.tasks["second"], canonicalise(load_onnx(files["second"]))
        moves: dict[str, Callable[[Tap], Tap]] = {
            "as exported": lambda tap: tap,
            "behind DequantizeLinear": _moved(model, "DequantizeLinear", forward=True),
            "in front of QuantizeLinear": _moved(model, "QuantizeLinear", forward=False),
        }
        rows = _digits(size, 1)
        variants = {kind: _runner(_cut(model, steps, move), rows, threads) for kind, move in moves.items()}
        seconds = _in_any_order({"the whole": _runner([str(files["second"])], rows, threads), **variants}, rounds)
        crossing = {kind: sum(move(tap).row_bytes for step in steps[1:] for tap in step.inputs) for kind, move in moves.items()}
    return {kind: (float(np.median(values)) * 1e3, crossing.get(kind, 0)) for kind, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one network and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--network", default="resnet18", help="of timm")
    parser.add_argument("--block", default="layer4.1", help="its module that is tuned")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, help="of ONNX Runtime; default: the cores of this process")
    options = parser.parse_args(arguments)
    found = _measure(options.network, options.block, options.size, options.rounds, options.threads)
    print(f"{options.network}, {options.block} tuned, {options.size} pixels:")
    for kind, (milliseconds, crossing) in found.items():
        print(f"{kind:28}{milliseconds:8.3f} ms{crossing:12,} bytes cross")


if __name__ == "__main__":
    main()
