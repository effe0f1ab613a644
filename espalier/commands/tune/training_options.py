"""The options of all commands that train, and what becomes of them."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuning.training import FitOptions

_MEMORY_BYTES = 2 * 1024**3


class Cache(StrEnum):
    """Where features of the frozen part are kept."""

    AUTO = "auto"
    MEMORY = "memory"
    DISK = "disk"
    OFF = "off"


class PrecisionName(StrEnum):
    """What trainings compute in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


EpochsOption = Annotated[int, typer.Option(min=1, help="Passes over the training data.")]
LrOption = Annotated[
    float | None, typer.Option(help="Peak learning rate (AdamW, cosine); default 1e-3, 1e-2 for a linear probe.")
]
WeightDecayOption = Annotated[float, typer.Option(help="Weight decay.")]
BatchSizeOption = Annotated[int, typer.Option(min=2, help="Images per step.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Fixes the head's first weights, the order of the data, and the folds.")]
ViewsOption = Annotated[int, typer.Option(min=0, help="Augmented views drawn of every image beforehand; 0: no augmentation.")]
FlipOption = Annotated[bool, typer.Option("--flip", help="With --views: views may be mirrored.")]
CacheOption = Annotated[
    Cache,
    typer.Option(
        help="Where features of the frozen part are kept, which are computed once: 2 GiB of memory and files beyond that (auto), only "
        "memory, only files, or nowhere (off: the whole network runs in every epoch)."
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda|...", help="auto: the first GPU, if there is one.")]
PrecisionOption = Annotated[PrecisionName, typer.Option(help="auto: bfloat16 on GPUs that have it, float32 elsewhere.")]


def make_fit_options(
    *,
    epochs: int,
    lr: float | None,
    weight_decay: float,
    batch_size: int,
    seed: int,
    views: int = 0,
    flip: bool = False,
    cache: Cache = Cache.AUTO,
    device: str = "auto",
    precision: PrecisionName = PrecisionName.AUTO,
) -> FitOptions:
    """Return the options as the trainer takes them. Raises BadOptions."""
    from tuning.training import FitOptions

    return FitOptions(
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        seed=seed,
        views=views,
        flip=flip,
        cache_bytes=_MEMORY_BYTES if cache in (Cache.AUTO, Cache.MEMORY) else 0,
        cache_folder=Path(tempfile.gettempdir()) if cache in (Cache.AUTO, Cache.DISK) else None,
        device=device,
        precision=precision.value,
    )
