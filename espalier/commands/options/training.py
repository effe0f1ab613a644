"""Options of every command that trains, and what becomes of them."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract.system import available_memory_bytes

if TYPE_CHECKING:
    from tuning.training.features import FeatureStore
    from tuning.training.loop import FitOptions

_AUTO_BYTES = 2 * 1024**3  # of memory for kept features, with --cache auto


class Cache(StrEnum):
    """Where frozen features are kept."""

    AUTO = "auto"
    MEMORY = "memory"
    DISK = "disk"
    OFF = "off"


class _Precision(StrEnum):
    """What forward passes compute in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


LrOption = Annotated[
    float | None, typer.Option(help="Peak learning rate (AdamW, cosine); default 1e-3, 1e-2 for a linear probe.")
]
BatchSizeOption = Annotated[int, typer.Option(min=2, help="Images per step.")]


@dataclass(frozen=True)
class Learning:
    """Options of what a training does."""

    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 10
    lr: LrOption = None
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 1e-2
    batch_size: BatchSizeOption = 64
    seed: Annotated[int, typer.Option(min=0, help="Fixes the head's first weights, the order of the data, and folds.")] = 0


@dataclass(frozen=True)
class Augmentation:
    """Options of what becomes of training images."""

    views: Annotated[
        int,
        typer.Option(
            min=0, help="Augmented views drawn of each training image beforehand; epochs take them in turn. 0: no augmentation."
        ),
    ] = 0
    flip: Annotated[bool, typer.Option("--flip", help="With --views: views may be mirrored.")] = False


@dataclass(frozen=True)
class Machine:
    """Options of where a training runs, and what it may use."""

    cache: Annotated[
        Cache,
        typer.Option(
            help="Where features that no training changes are kept, so that they are computed once. auto: up to 2 GiB in memory, "
            "what is larger in files in the temporary folder (TMPDIR), deleted at the end. memory: up to half of what this process has. "
            "disk: in files. off: nowhere; the whole network runs in every step."
        ),
    ] = Cache.AUTO
    device: Annotated[
        str,
        typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="auto: the first GPU, otherwise the CPU."),
    ] = "auto"
    precision: Annotated[
        _Precision,
        typer.Option(help="auto: bfloat16 on GPUs that have it, float32 elsewhere. Weights and scores are float32 in any case."),
    ] = _Precision.AUTO


def make_fit_options(learning: Learning, augmentation: Augmentation, machine: Machine) -> FitOptions:
    """Return the options as training takes them. Raises BadParameter or tuning's BadOptions."""
    from tuning.training.loop import FitOptions

    if augmentation.flip and not augmentation.views:
        raise typer.BadParameter("without --views nothing is augmented; give --views 10, say.", param_hint="--flip")
    cache_bytes, folder = cache_limits(machine.cache)
    return FitOptions(
        **asdict(learning),
        **asdict(augmentation),
        cache_bytes=cache_bytes,
        cache_folder=folder,
        device=machine.device,
        precision=machine.precision.value,
    )


def cache_limits(cache: Cache) -> tuple[int, Path | None]:
    """Return how many bytes of memory kept features may take, and the folder for those beyond, None for nowhere."""
    folder = _temporary_folder()
    if folder is None and cache is Cache.DISK:
        raise typer.BadParameter("there is no folder for temporary files; let TMPDIR name one.", param_hint="--cache")
    limits = {
        Cache.AUTO: (_AUTO_BYTES, folder),
        Cache.MEMORY: ((available_memory_bytes() or 2 * _AUTO_BYTES) // 2, None),
        Cache.DISK: (0, folder),
        Cache.OFF: (0, None),
    }
    return limits[cache]


def _temporary_folder() -> Path | None:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def open_store(options: FitOptions) -> FeatureStore:
    """Return a store for frozen features that says how much it is going to keep. To be closed."""
    from espalier.console import say
    from tuning.training.features import FeatureStore

    return FeatureStore(options.cache_bytes, options.cache_folder, lambda sentence: say(f"Keeping {sentence}."))
