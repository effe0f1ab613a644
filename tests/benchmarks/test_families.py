"""The dense and the text family of the benchmarks: what is shared by hand and by export is what the arithmetic says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.families.benchmark import run
from benchmarks.framework.errors import NoSuchNetwork
from benchmarks.framework.options import Options, Scale
from benchmarks.models.blocks import BlockFamily, count_macs, run_apart, run_together
from benchmarks.models.dense_family import DenseSize, dense_family
from benchmarks.models.text_family import TextSize, text_family

pytestmark = pytest.mark.slow
SIZE = TextSize(layers=4, width=8, heads=2, words=20, most=8, tuned=1, tasks=3, classes=3)
DENSE = DenseSize("resnet18", 32, 8, {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 2]})


def answers(family: BlockFamily) -> tuple[list[np.ndarray], list[np.ndarray]]:
    inputs = [value.numpy() for value in family.inputs.values()]
    networks = [*family.networks.values()]
    return run_apart(networks, inputs), run_together(networks, inputs)


@pytest.mark.parametrize("family", [text_family(SIZE, 8), dense_family(DENSE)], ids=["text", "dense"])
def test_what_is_shared_by_hand_answers_as_the_networks(family: BlockFamily) -> None:
    apart, together = answers(family)
    assert len({answer.tobytes() for answer in apart}) == len(family.networks)  # all are different tasks
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_the_text_family_can_save_is_what_its_layers_say() -> None:
    family, length = text_family(SIZE, 8), 8
    layer = length * 8 * 8 * (4 + 8) + 2 * length * length * 8  # four products, two of four times the width; attention
    head = 8 * 8 + 8 * 3
    assert count_macs(run_apart, family) == 3 * (4 * layer + head)
    assert count_macs(run_together, family) == (3 + 3) * layer + 3 * head


def test_the_dense_family_is_three_decoders_and_four_classifiers_on_four_levels() -> None:
    family = dense_family(DENSE)
    shapes = {name: answer.shape for name, answer in zip(family.networks, answers(family)[0], strict=True)}
    assert shapes == {
        "mask": (1, 21, 8, 8),
        "depth": (1, 1, 8, 8),
        "boxes": (1, 6 * (4 * 4 + 2 * 2 + 1), 25),
        **{f"classes-{number}": (1, 100) for number in range(4)},
    }
    backbones = [{id(block) for block in network.blocks} for network in family.networks.values()]
    assert [len(blocks & backbones[0]) for blocks in backbones] == [6, 6, 6, 6, 6, 5, 5]  # the last two tune the last block


def test_a_family_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NoSuchNetwork, match=r"sound.*dense.*text"):
        run(Options(tmp_path, Scale.tiny, only=("sound",)))
