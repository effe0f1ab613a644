"""The ways to adapt a backbone to a task: SubTuning and what it is compared with. A method is data; the trainer carries it out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from tuning.errors import BadOptions
from tuning.network.blocks import find_blocks, is_under
from tuning.network.low_rank import adaptable_layers
from tuning.network.paths import norm_paths

TUNING_LR = 1e-3
PROBE_FACTOR = 10.0  # a head alone takes so many times larger steps: nothing pretrained can be lost
PROBE_LR = PROBE_FACTOR * TUNING_LR
LORA_RANKS = (2, 8)
GROUPS = 4  # contiguous groups of blocks that surgical finetuning chooses from, as many as a ResNet has stages


@dataclass(frozen=True)
class TrainingPhase:
    """A stretch of training.

    paths: what is trained beside the head. everything: all weights are, whatever `paths` says.
    lr: peak; None: that of the options, or the default.
    """

    paths: tuple[str, ...]
    epochs: int
    lr: float | None = None
    everything: bool = False


@dataclass(frozen=True)
class Method:
    """What is trained, when and how.

    name, variant: for people and ledgers, the variant telling it from others of the name. phases: one after the other, each on the
    paths of the last and more.
    siamese: the head sees the frozen features, too. rank: of LoRA around the layers in `paths`; 0: the layers themselves are trained.
    relative_gradients: Auto-RGN. one_cosine: the learning rate falls once over all phases, not in each.
    """

    name: str
    phases: tuple[TrainingPhase, ...]
    siamese: bool = False
    rank: int = 0
    relative_gradients: bool = False
    one_cosine: bool = False
    variant: str = ""

    def __post_init__(self) -> None:
        for before, after in itertools.pairwise(self.phases):
            kept = after.everything or (not before.everything and all(is_under(path, after.paths) for path in before.paths))
            if not kept:
                raise BadOptions(
                    f"In the method {self.name!r}, a phase must train what the phase before it trains, and may train more."
                )
        if self.rank and (self.siamese or self.all_weights):
            raise BadOptions(
                "LoRA is for single layers of one network: not for Siamese heads, and not together with all weights."
            )

    @property
    def paths(self) -> tuple[str, ...]:
        """What the task owns beside the head."""
        return self.phases[-1].paths

    @property
    def all_weights(self) -> bool:
        """Whether the task owns every tensor."""
        return self.phases[-1].everything

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)


def linear_probe(epochs: int, lr: float | None = None) -> Method:
    """Only a new head. lr: peak, if neither that of the options nor the default."""
    return Method("linear probe", (TrainingPhase((), epochs, lr),))


def subtuning(paths: Sequence[str], epochs: int, *, siamese: bool = False, warm_head: bool = False) -> Method:
    """The named parts and a new head (arXiv 2302.06354). warm_head: half of the epochs go to the head alone first."""
    name = "siamese subtuning" if siamese else "subtuning"
    if not paths and not siamese:
        return linear_probe(epochs)
    return Method(name, _phases(tuple(paths), epochs, warm_head), siamese=siamese)


def all_blocks(blocks: Sequence[str], epochs: int, *, warm_head: bool = False) -> Method:
    """Every block, not the stem, tokens and outer norms: what the authors' code calls full finetuning."""
    return Method("all blocks", _phases(tuple(blocks), epochs, warm_head))


def full_finetuning(epochs: int) -> Method:
    """All weights."""
    return Method("full finetuning", (TrainingPhase((), epochs, everything=True),))


def lp_ft(epochs: int) -> Method:
    """The head first, then all weights (arXiv 2202.10054), half of the epochs each."""
    return Method("lp-ft", _phases((), epochs, True, everything=True))


def surgical(group: Sequence[str], epochs: int) -> Method:
    """One contiguous group of blocks (arXiv 2210.11466)."""
    return Method("surgical", (TrainingPhase(tuple(group), epochs),), variant=f"{group[0]} to {group[-1]}")


def auto_rgn(epochs: int) -> Method:
    """All weights, each parameter's learning rate scaled by its relative gradient norm (arXiv 2210.11466)."""
    return Method("auto-rgn", (TrainingPhase((), epochs, everything=True),), relative_gradients=True)


def gradual_unfreezing(blocks: Sequence[str], epochs: int) -> Method:
    """The head first, then block after block from the last one on (arXiv 1801.06146), evenly over the epochs.

    Raises BadOptions for a single epoch.
    """
    if epochs < 2:
        raise BadOptions("Gradual unfreezing needs at least 2 epochs, one for the head and one for the blocks.")
    stages = min(epochs, len(blocks) + 1)
    phases = []
    for stage in range(stages):
        begin, end = epochs * stage // stages, epochs * (stage + 1) // stages
        thawed = round(len(blocks) * stage / max(stages - 1, 1))
        phases.append(TrainingPhase(tuple(blocks[len(blocks) - thawed :]), end - begin))
    return Method("gradual unfreezing", tuple(phases), one_cosine=True)


def lora(layers: Sequence[str], rank: int, epochs: int) -> Method:
    """Low-rank updates of the attention layers (arXiv 2106.09685), merged before the task is saved."""
    return Method("lora", (TrainingPhase(tuple(layers), epochs),), rank=rank, variant=f"rank {rank}")


def norm_only(network: nn.Module, epochs: int) -> Method:
    """Every normalisation layer."""
    return Method("norm-only", (TrainingPhase(norm_paths(network), epochs),))


def contiguous_groups(blocks: Sequence[str], count: int = GROUPS) -> tuple[tuple[str, ...], ...]:
    """Return the blocks in `count` contiguous groups of about equal length, in order; in fewer if there are fewer blocks."""
    count = min(count, len(blocks))
    bounds = [len(blocks) * i // max(count, 1) for i in range(count + 1)]
    return tuple(tuple(blocks[a:b]) for a, b in itertools.pairwise(bounds))


Variants = Callable[[nn.Module, int], tuple[Method, ...]]

# What each baseline may choose from, by validation: most are one method, surgical chooses its group, LoRA its rank.
BASELINES: Mapping[str, Variants] = MappingProxyType(
    {
        "linear probe": lambda network, epochs: (linear_probe(epochs),),
        "full finetuning": lambda network, epochs: (full_finetuning(epochs),),
        "all blocks": lambda network, epochs: (all_blocks(find_blocks(network), epochs),),
        "lp-ft": lambda network, epochs: (lp_ft(epochs),),
        "surgical": lambda network, epochs: tuple(surgical(g, epochs) for g in contiguous_groups(find_blocks(network))),
        "auto-rgn": lambda network, epochs: (auto_rgn(epochs),),
        "gradual unfreezing": lambda network, epochs: (gradual_unfreezing(find_blocks(network), epochs),),
        "lora": lambda network, epochs: tuple(lora(adaptable_layers(network), rank, epochs) for rank in LORA_RANKS),
        "norm-only": lambda network, epochs: (norm_only(network, epochs),),
    }
)


def _phases(paths: tuple[str, ...], epochs: int, warm_head: bool, everything: bool = False) -> tuple[TrainingPhase, ...]:
    if not warm_head:
        return (TrainingPhase(paths, epochs, everything=everything),)
    if epochs < 2:
        raise BadOptions("A head that is trained first needs at least 2 epochs, one for the head and one for the rest.")
    return (TrainingPhase((), epochs // 2, PROBE_LR), TrainingPhase(paths, epochs - epochs // 2, everything=everything))
