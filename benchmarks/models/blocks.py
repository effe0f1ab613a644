"""Networks of blocks in a row with a head, of which several may have blocks in common: as ONNX files, and run in torch by hand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models.synthetic import Family
from contract.dtypes import Array
from exporter.errors import ExportError
from exporter.export import ExportOptions, export_repository
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import bind

_OPSET = 18
_State = tuple[Tensor, ...]


class BlockNetwork(nn.Module):
    """blocks: each makes tensors of tensors. taps: numbers of the blocks whose first tensor the head takes."""

    def __init__(self, blocks: Sequence[nn.Module], taps: Sequence[int], head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.taps, self.head = nn.ModuleList(blocks), tuple(taps), head

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the head makes of the taps."""
        states = [inputs]
        for block in self.blocks:
            states.append(block(*states[-1]))
        answer: Tensor = self.head(*(states[tap + 1][0] for tap in self.taps))
        return answer


@dataclass(frozen=True, eq=False)
class BlockFamily:
    """Tasks by name. kinds: equal kinds, equal graphs. inputs: one row of each, by name, in the networks' order.

    free: for each input the names of its axes that a request chooses, the batch left out.
    """

    networks: Mapping[str, BlockNetwork]
    kinds: Mapping[str, str]
    inputs: Mapping[str, Tensor]
    free: Mapping[str, Mapping[int, str]]

    def export(self, folder: Path) -> Family:
        """Write the networks and a repository of them into `folder`. Raises ExportError."""
        traces: dict[str, ir.Model] = {}
        files: dict[str, Path] = {}
        for name, network in self.networks.items():
            kind = self.kinds[name]
            if kind not in traces:
                traces[kind] = self._trace(network)
            files[name] = folder / f"{name}.onnx"
            ir.save(bind(traces[kind], network.state_dict()), files[name])
        sources = Sources({name: partial(_load, file) for name, file in files.items()})
        return Family(export_repository(sources, ExportOptions(folder / "repository")).repository, files)

    def _trace(self, network: nn.Module) -> ir.Model:
        rows = tuple(torch.cat([value, value]) for value in self.inputs.values())
        sizes: dict[str, Any] = {name: torch.export.Dim(name) for axes in self.free.values() for name in axes.values()}
        batch = torch.export.Dim("batch")
        axes = [{0: batch} | {axis: sizes[size] for axis, size in self.free.get(name, {}).items()} for name in self.inputs]
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                network,
                rows,
                dynamo=True,
                optimize=False,
                opset_version=_OPSET,
                dynamic_shapes=(tuple(axes),),
                input_names=[*self.inputs],
                output_names=["answer"],
                verbose=False,
            )
        if program is None:
            raise ExportError("torch returned no ONNX program for the network.")
        return program.model


def run_apart(networks: Sequence[nn.Module], inputs: Sequence[Array]) -> list[Array]:
    """Return the answers of `networks`, each run by itself, one after another."""
    given = _given(inputs)
    with torch.inference_mode():
        return [network(*given).numpy() for network in networks]


def run_together(networks: Sequence[BlockNetwork], inputs: Sequence[Array]) -> list[Array]:
    """Return the answers of `networks`, where a block that several have is run once on what it takes: what one would write by hand."""
    given = _given(inputs)
    done: dict[tuple[int, ...], _State] = {}
    answers = []
    with torch.inference_mode():
        for network in networks:
            states = [given]
            for block in network.blocks:
                key = id(block), *map(id, states[-1])
                if key not in done:
                    done[key] = block(*states[-1])
                states.append(done[key])
            answers.append(network.head(*(states[tap + 1][0] for tap in network.taps)).numpy())
    return answers


def count_macs(run: Callable[[Sequence[BlockNetwork], Sequence[Array]], object], family: BlockFamily) -> int:
    """Return the MACs of one request for all tasks of `family` as `run` computes it, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        run([*family.networks.values()], [value.numpy() for value in family.inputs.values()])
    return int(counter.get_total_flops()) // 2


def _given(inputs: Sequence[Array]) -> _State:
    """Return `inputs` as torch takes them; images channels last, which suits convolutions on a CPU."""
    tensors = (torch.from_numpy(value) for value in inputs)
    return tuple(value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value for value in tensors)


def _load(file: Path) -> TaskModel:
    return TaskModel(ir.load(file), file=file)
