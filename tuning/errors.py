"""Every error of tuning. A class takes facts and writes the sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from contract.errors import EspalierError

_NAMED = 3  # how many of a list of names a sentence shows


class TuningError(EspalierError):
    """Anything that tuning refuses or fails at, with one sentence for the user."""


class UnknownBlock(TuningError):
    """A block to tune is not in the backbone."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown block {name!r}; this backbone's blocks are: {', '.join(known) or 'none'}.")
        self.name = name


class UnknownBackbone(TuningError):
    """Neither a file of ours nor a network that timm or torchvision knows. known: all names of its kind, where they are few."""

    def __init__(self, name: str, close: Iterable[str] = (), known: Iterable[str] = ()) -> None:
        near = ", ".join(close)
        hint = f"did you mean {near}?" if near else "give a timm name, torchvision/NAME, or a backbone file."
        hint = f"known are: {', '.join(known)}." if known else hint
        if Path(name).is_dir():
            hint = "it is a folder; give a file in it, or a network's name."
        super().__init__(f"Unknown backbone {name!r}; {hint}")
        self.name = name


class BackboneOptions(TuningError):
    """The library refuses to build the network with these options."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Backbone {name!r} cannot be built as asked: {reason.rstrip('.')}.")


class WeightsUnavailable(TuningError):
    """Pretrained weights could not be fetched, or were never `published`."""

    def __init__(self, name: str, reason: str, *, published: bool = True) -> None:
        again = ", or try again with a connection to the network" if published else ""
        super().__init__(
            f"No pretrained weights for {name!r}: {reason.rstrip('.')}; give weights from a file, as {name}@FILE{again}."
        )


class PackageMissing(TuningError):
    """The package that holds the weights is not installed. extra: of ours, which brings it; "" if none does."""

    def __init__(self, name: str, package: str, extra: str = "") -> None:
        bringing = f" (espalier's extra {extra!r})" if extra else ""
        super().__init__(
            f"{name} is in the package {package}, which is not installed; install it with pip{bringing}, or give {name}@FILE."
        )


class BadCheckpoint(TuningError):
    """A file is missing, truncated, foreign, or holds other tensors than the network needs."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason.rstrip('.')}.")


class WrongTensors(TuningError):
    """A set of tensors does not fit the network: names are missing or too many, or shapes differ."""

    def __init__(self, missing: Sequence[str], extra: Sequence[str], misshapen: Sequence[str] = ()) -> None:
        kinds = (("missing", missing), ("not in the network", extra), ("of another shape", misshapen))
        parts = [f"{len(names)} {what} ({_first(names)})" for what, names in kinds if names]
        super().__init__(f"the tensors do not fit the network: {', '.join(parts)}.")


class CannotWrite(TuningError):
    """A file could not be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"Cannot write {path}: {reason.rstrip('.')}.")


class NoUserCacheFolder(TuningError):
    """Nothing can be kept for a user without a home."""

    def __init__(self) -> None:
        super().__init__("This user has no home folder to keep files in; let XDG_CACHE_HOME name a folder.")


class BackboneMismatch(TuningError):
    """A task was tuned on another backbone than the one given."""

    def __init__(self, what: str, wanted: str, given: str) -> None:
        super().__init__(f"The task was tuned on a backbone with {what} {wanted}, but the given backbone has {given}.")


class UnsupportedNetwork(TuningError):
    """The network lacks something that tuning needs, such as a classifier that can be replaced."""


class BadData(TuningError):
    """A data set or a folder of images cannot be trained on."""


class NotDownloaded(BadData):
    """A public data set is not in its folder."""

    def __init__(self, name: str, folder: Path, reason: str) -> None:
        super().__init__(f"{name} is not in {folder} ({reason}); have it fetched, or give the folder that holds it.")


class BadOptions(TuningError):
    """Options of a fit are out of range or contradict each other."""


class UnusableDevice(BadOptions):
    """A device that torch cannot compute on. here: the kind of GPU that there is, or "no GPU"."""

    def __init__(self, device: str, here: str) -> None:
        super().__init__(f"Device {device!r} cannot be used; this machine has cpu and {here}. Give auto, or cpu.")


class NonFiniteLoss(TuningError):
    """Training diverged."""

    def __init__(self, step: int, lr: float) -> None:
        super().__init__(f"The loss became infinite or NaN at step {step}; try a learning rate below {lr:g}.")
        self.step = step


def _first(names: Sequence[str]) -> str:
    """Return the first few of `names`, and an ellipsis when there are more."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
