"""The method that the options of `espalier tune fit` name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.commands.options.tune import parse_subset

if TYPE_CHECKING:
    from tuning.network.backbone import Backbone
    from tuning.training.methods import Method

_LORA_RANK = 8
_METHODS = (
    "linear-probe, all-blocks, full-finetuning, lp-ft, gradual-unfreezing, auto-rgn, norm-only, surgical (with --group), "
    "lora (with --rank)"
)


@dataclass(frozen=True)
class MethodOptions:
    """Options of what is tuned and how: SubTuning of `blocks`, or another method by its name, with dashes."""

    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|none|all",
            help="What to tune, separated by commas: blocks or other modules and parameters, by name or pattern (layer4.1, "
            "blocks.*.attn, cls_token); norm, attention: all normalisation layers, all attention modules; PATH:norm: those under a "
            "path or pattern (layer4.*:norm; *:norm where a part itself is called norm). none: only a new head; all: every block. "
            "Needed, unless --method is given.",
        ),
    ] = None
    all_weights: Annotated[bool, typer.Option("--all-weights", help="With --blocks all: the stem and outer norms, too.")] = False
    siamese: Annotated[
        bool, typer.Option("--siamese", help="The head sees the frozen features beside the tuned ones, from the shared trunk.")
    ] = False
    warm_head: Annotated[
        bool, typer.Option("--warm-head", help="Half of the epochs go to the head alone first (as LP-FT does).")
    ] = False
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Instead of --blocks, a method to compare with: {_METHODS}.")
    ] = None
    rank: Annotated[int | None, typer.Option(min=1, help=f"Of --method lora (default {_LORA_RANK}).")] = None
    group: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of --method surgical: which of the (up to four) contiguous groups of blocks, 1 next to the input."
        ),
    ] = None


def check_method(wanted: MethodOptions) -> None:
    """Raise BadParameter for options that contradict each other, before anything is loaded."""
    if wanted.method is None:
        _check_subtuning(wanted)
        return
    if wanted.blocks is not None or wanted.all_weights or wanted.siamese or wanted.warm_head:
        raise typer.BadParameter(
            "a named method says itself what is trained; leave out --blocks, --all-weights, --siamese and --warm-head.",
            param_hint="--method",
        )
    known = baseline_names()
    if wanted.method not in known:
        raise typer.BadParameter(f"{wanted.method!r} is none of {', '.join(known)}.", param_hint="--method")
    if wanted.rank is not None and wanted.method != "lora":
        raise typer.BadParameter("only --method lora has a rank.", param_hint="--rank")
    if (wanted.group is not None) != (wanted.method == "surgical"):
        raise typer.BadParameter(
            "--method surgical, and no other, needs --group: which group of blocks to tune.", param_hint="--group"
        )


def find_method(wanted: MethodOptions, backbone: Backbone, epochs: int) -> Method:
    """Return the method. Raises BadParameter, or tuning's UnknownBlock, BadOptions, UnsupportedNetwork."""
    from tuning.network.low_rank import adaptable_layers
    from tuning.training.fit import choose_method
    from tuning.training.methods import BASELINES, contiguous_groups, lora, surgical

    check_method(wanted)
    if wanted.method is None:
        subset = parse_subset(wanted.blocks or "none")
        return choose_method(
            backbone, subset, epochs, all_weights=wanted.all_weights, siamese=wanted.siamese, warm_head=wanted.warm_head
        )
    if wanted.method == "lora":
        return lora(adaptable_layers(backbone.network), wanted.rank or _LORA_RANK, epochs)
    if wanted.method == "surgical":
        groups = contiguous_groups(backbone.blocks)
        if not 1 <= (wanted.group or 0) <= len(groups):
            raise typer.BadParameter(
                f"this backbone's blocks are in {len(groups)} groups, 1 next to the input.", param_hint="--group"
            )
        return surgical(groups[(wanted.group or 1) - 1], epochs)
    (method,) = next(variants for name, variants in BASELINES.items() if _dashed(name) == wanted.method)(backbone.network, epochs)
    return method


def baseline_names() -> tuple[str, ...]:
    """Return the names of the methods, as the command line writes them."""
    from tuning.training.methods import BASELINES

    return tuple(map(_dashed, BASELINES))


def _dashed(name: str) -> str:
    """Return a method's name as the command line writes it."""
    return name.replace(" ", "-")


def _check_subtuning(wanted: MethodOptions) -> None:
    if wanted.rank is not None or wanted.group is not None:
        raise typer.BadParameter("give --method lora with --rank, --method surgical with --group.", param_hint="--rank / --group")
    if wanted.blocks is None:
        raise typer.BadParameter(
            "say what to tune: block names, which `espalier tune blocks` lists; none for a new head alone (a linear probe); all; or a "
            "--method instead.",
            param_hint="--blocks",
        )
    for given, option in ((wanted.siamese, "--siamese"), (wanted.warm_head, "--warm-head")):
        if given and wanted.blocks == "none":
            raise typer.BadParameter("makes no difference to a linear probe; say what to tune with --blocks.", param_hint=option)
