from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks.studies.coverage.sharing import text
from benchmarks.studies.coverage.sharing.families import KINDS
from benchmarks.studies.coverage.sharing.family import FamilyTask, TaskFamily, add_noise
from benchmarks.studies.coverage.sharing.measure import SharingRecord, measure_sharing
from benchmarks.studies.coverage.sharing.report import make_sections, why_less, with_sections
from benchmarks.studies.coverage.sharing.truth import add_up, run_graph, run_torch, stored_too_often
from exporter.graph.passes.canonical import canonicalise
from tests.exporter.dense import SIZE, Dense
from tests.exporter.test_dense import possible_macs

pytestmark = pytest.mark.slow
NETS = {"mask": Dense("pyramid"), "tuned": Dense("unet", 91, (10, 20, 31, 40)), "one": Dense("classes", 92)}


def canonical(net: Dense) -> ir.Model:
    return canonicalise(net.model())


def test_what_can_be_shared_is_what_computes_equal_values() -> None:
    image = {"image": np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)}
    models = [canonical(net) for net in NETS.values()]
    executed = [run_graph(model, image) for model in models]
    possible = add_up(executed)
    assert possible.macs - possible.shared_macs == possible_macs(NETS)
    whole, trunk = 4 * 3 * 9 + 2 * 4 * 4 * 9, 4 * 6 * 9 + 2 * 6 * 6 * 9  # weights of the first two levels, in all three
    deep = 6 * 8 * 9 + 2 * 8 * 8 * 9, 8 * 10 * 9 + 2 * 10 * 10 * 9  # of the others, in the two that are frozen
    assert possible.shared_bytes == 4 * (2 * (whole + trunk) + sum(deep))
    assert stored_too_often(executed, models) == possible.shared_bytes  # one by one, nothing is stored once


def test_torch_counts_what_runs_on_equal_inputs_once() -> None:
    first = nn.Linear(8, 16)
    networks = [nn.Sequential(first, nn.Linear(16, size)) for size in (3, 5)]
    networks.append(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3)))
    possible = add_up([run_torch(network, [torch.ones(4, 8)]) for network in networks])
    assert (possible.macs, possible.shared_macs) == (3 * 8 * 16 + 16 * 11, 8 * 16)


class _OfWeightsAlone(nn.Module):
    """Adds to what a layer makes of the rows what it makes of a table of its own, as encoders with relative positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(8, 16), nn.Parameter(torch.ones(5, 8))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layer(rows) + self.layer(self.table).sum(0)
        return answer


def test_what_follows_from_weights_alone_is_no_work_of_a_request() -> None:
    assert run_torch(_OfWeightsAlone(), [torch.ones(4, 8)]).total_macs == 8 * 16


def tiny_family() -> TaskFamily:
    torch.manual_seed(0)
    tasks = {}
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    for seed, (name, tuned) in enumerate({"mask": (), "tuned": ("0.2",), "other": ()}.items()):
        own = nn.Sequential(*(type(layer)(**_options(layer)) for layer in backbone))
        own.load_state_dict(backbone.state_dict())
        network = nn.Sequential(own, nn.Conv2d(8, 2 + seed, 1)).eval().requires_grad_(False)
        add_noise(network, tuned, seed)
        tasks[name] = FamilyTask(network, name, tuned)
    return TaskFamily("tiny", "two convolutions", tasks, {"image": torch.randn(2, 3, 16, 16)})


def _options(layer: nn.Module) -> dict[str, Any]:
    if not isinstance(layer, nn.Conv2d):
        return {}
    return {"in_channels": layer.in_channels, "out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}


def test_a_family_of_which_all_is_shared_that_can_be() -> None:
    record = SharingRecord("tiny")
    measure_sharing(tiny_family(), record)
    first, second = 3 * 8 * 9 * 64, 8 * 8 * 9 * 16
    assert (record.possible_macs, record.found_macs) == (2 * first + second, 2 * first + second)
    assert record.possible_bytes == record.found_bytes == 4 * (2 * (3 * 8 * 9 + 8) + 8 * 8 * 9 + 8)
    assert record.torch_possible == pytest.approx(record.possible_macs / record.macs, abs=1e-4)
    assert why_less(record.to_json()) == ""


def test_a_family_of_which_less_is_shared_is_not_right() -> None:
    line = {"family": "tiny", "macs": 100, "possible_macs": 50, "possible_bytes": 50, "torch_possible": 0.5}
    assert why_less({**line, "found_macs": 50, "found_bytes": 50}) == ""
    assert "98.00% of the MACs" in why_less({**line, "found_macs": 49, "found_bytes": 50})
    assert "90.000% of the bytes" in why_less({**line, "found_macs": 50, "found_bytes": 45})
    assert "in torch 20.0%" in why_less({**line, "found_macs": 50, "found_bytes": 50, "torch_possible": 0.2})
    assert why_less({"family": "tiny", "reason": "MemoryError: "}) == "MemoryError: "


def test_noise_on_what_a_network_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="no weights under nowhere"):
        add_noise(nn.Linear(2, 2), ["nowhere"], 0)


def test_tables_go_between_their_marks_and_leave_the_rest() -> None:
    record = SharingRecord("lraspp", "small", 2, "", 200, 100, 100, 90, 0.5, 400, 200, 200, 300, 300, 4, 3, 1e-6)
    failed = SharingRecord("bert", "", 2, "MemoryError: none left")
    sections = make_sections([record.to_json(), failed.to_json()], {"dense": ["lraspp", "fcn"], "text": ["bert"]}, "torch 2")
    document = with_sections("# Title\n\nText.\n", sections)
    assert document.startswith("# Title\n\nText.\n\n<!--")
    assert "| lraspp | small | 0.0 | 50.0% | 50.0% | 100.00% | 90.0% | 100.00% | 1.00 | 4, 3 | 1e-06 |" in document
    assert "- bert: MemoryError: none left" in document
    assert "Not measured yet: fcn." in document
    again = with_sections(document + "\nBelow.\n", sections.replace("torch 2", "torch 3"))
    assert again.count("# Dense networks and text encoders") == 1
    assert again.endswith("\nBelow.\n")
    assert "torch 2" not in again


def test_there_are_ten_dense_and_six_text_families() -> None:
    assert len(KINDS["dense"]()) >= 10
    assert len(KINDS["text"]()) >= 6


@pytest.mark.parametrize(("family", "tasks"), [("fpn", ("dense-1", "classes-0")), ("bert", ("mood", "names"))])
def test_a_real_family_shares_all_that_it_can(family: str, tasks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_LAYERS", 2)
    monkeypatch.setattr(text, "_HEADS", {"mood": (text._HEADS["mood"][0], (1,)), "names": text._HEADS["names"]})
    whole = next(families[family]() for families in (kind() for kind in KINDS.values()) if family in families)
    record = SharingRecord(family)
    measure_sharing(replace(whole, tasks={name: whole.tasks[name] for name in tasks}), record)
    assert why_less(record.to_json()) == ""
    assert record.possible_macs > 0.2 * record.macs
    assert record.parity < 1e-4
