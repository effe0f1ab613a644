from __future__ import annotations

import itertools

import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from tests.nets import tiny_resnet, tiny_vit
from tuning.errors import BadOptions, UnsupportedNetwork
from tuning.training.methods import (
    BASELINES,
    GROUPS,
    LORA_RANKS,
    PROBE_LR,
    Method,
    TrainingPhase,
    all_blocks,
    contiguous_groups,
    gradual_unfreezing,
    lp_ft,
    subtuning,
)

block_names = st.integers(1, 40).map(lambda count: [f"b{index}" for index in range(count)])


@given(blocks=block_names, epochs=st.integers(2, 60))
def test_gradual_unfreezing_reaches_every_block_in_all_epochs(blocks: list[str], epochs: int) -> None:
    method = gradual_unfreezing(blocks, epochs)
    assert method.epochs == epochs
    assert all(phase.epochs >= 1 for phase in method.phases)
    assert method.phases[0].paths == ()
    assert method.paths == tuple(blocks)
    for before, after in itertools.pairwise(method.phases):
        assert len(after.paths) > len(before.paths)
        assert after.paths[len(after.paths) - len(before.paths) :] == before.paths  # from the last block on


def test_gradual_unfreezing_in_one_epoch_would_not_reach_the_blocks() -> None:
    with pytest.raises(BadOptions, match="at least 2 epochs"):
        gradual_unfreezing(["b0"], 1)


@given(blocks=block_names, count=st.integers(1, 8))
def test_contiguous_groups_part_the_blocks_in_order(blocks: list[str], count: int) -> None:
    groups = contiguous_groups(blocks, count)
    assert [block for group in groups for block in group] == blocks
    assert len(groups) == min(count, len(blocks))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1


def test_no_blocks_no_groups() -> None:
    assert contiguous_groups([]) == ()


@given(epochs=st.integers(2, 50))
def test_a_head_that_is_trained_first_has_half_of_the_epochs(epochs: int) -> None:
    for method in (subtuning(["b1"], epochs, warm_head=True), lp_ft(epochs), all_blocks(["b0", "b1"], epochs, warm_head=True)):
        first, second = method.phases
        assert (first.paths, first.everything, first.lr) == ((), False, PROBE_LR)
        assert first.epochs == epochs // 2
        assert method.epochs == epochs
        assert second.paths or second.everything


def test_a_head_cannot_be_trained_first_in_one_epoch() -> None:
    with pytest.raises(BadOptions, match="at least 2 epochs"):
        lp_ft(1)


def test_the_empty_subset_is_a_linear_probe() -> None:
    assert subtuning((), 3) == BASELINES["linear probe"](tiny_vit().network, 3)[0]
    assert subtuning((), 3, siamese=True).siamese


@pytest.mark.parametrize("backbone", [tiny_resnet(), tiny_vit()], ids=["resnet", "vit"])
def test_baselines_say_what_they_train(backbone) -> None:  # type: ignore[no-untyped-def]
    made = {name: variants(backbone.network, 6) for name, variants in BASELINES.items()}
    assert all(method.name == name and method.epochs == 6 for name, methods in made.items() for method in methods)
    assert [m.rank for m in made["lora"]] == list(LORA_RANKS)
    assert [block for m in made["surgical"] for block in m.paths] == list(backbone.blocks)
    assert len(made["surgical"]) == min(GROUPS, len(backbone.blocks))
    assert {name for name, methods in made.items() if methods[0].all_weights} == {"full finetuning", "lp-ft", "auto-rgn"}
    assert made["all blocks"][0].paths == made["gradual unfreezing"][0].paths == backbone.blocks


def test_lora_needs_layers_that_it_can_get_around() -> None:
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)
    with pytest.raises(UnsupportedNetwork, match="MultiheadAttention"):
        BASELINES["lora"](network, 3)


@pytest.mark.parametrize(
    "phases",
    [
        (TrainingPhase(("b1",), 1), TrainingPhase((), 1)),
        (TrainingPhase(("b1",), 1), TrainingPhase(("b2",), 1)),
        (TrainingPhase((), 1, everything=True), TrainingPhase(("b1",), 1)),
    ],
)
def test_what_was_trained_cannot_be_frozen_again(phases: tuple[TrainingPhase, ...]) -> None:
    with pytest.raises(BadOptions, match="'odd', a phase must train what the phase before it trains"):
        Method("odd", phases)


def test_phases_may_grow() -> None:
    Method("fine", (TrainingPhase(("b1.conv",), 1), TrainingPhase(("b1",), 1), TrainingPhase((), 1, everything=True)))


def test_lora_stands_alone() -> None:
    with pytest.raises(BadOptions, match="LoRA"):
        Method("odd", (TrainingPhase(("b1",), 1),), siamese=True, rank=2)
