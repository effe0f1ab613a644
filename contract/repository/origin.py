"""What an export was told that whoever adds a task would otherwise have to say again; kept with the ensemble of all tasks."""

from __future__ import annotations

import msgspec

from contract.units import human_bytes

_SHOWN = 12  # digits of a hash
_Channels = tuple[float, float, float]


def content_words(sha256: str, size_bytes: int) -> str:
    """Return a hash and a size for people."""
    return f"SHA-256 {sha256[:_SHOWN]}..., {human_bytes(size_bytes)}"


class BackboneRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The network that tasks were tuned from.

    reference: as it was given, in the words of `contract.references`. sha256 (hex), size_bytes: of its file, or the files that it is read
    from; of a network of a library without a file, of its weights. weights_sha256: of its weights without the head, as task checkpoints
    name them; "" where nobody has loaded them. network: what is built, with options, without weights; "" where a file says it.
    """

    reference: str
    sha256: str
    size_bytes: int
    weights_sha256: str = ""
    network: str = ""

    def __str__(self) -> str:
        """Return what it was called, and what it is."""
        return f"{self.reference!r} ({content_words(self.sha256, self.size_bytes)})"

    @property
    def has_file(self) -> bool:
        """Whether there is a file, or a folder, to be found again."""
        return self.sha256 != self.weights_sha256

    def is_same(self, other: BackboneRecord) -> bool:
        """Whether the two are one network with the same weights, as far as their hashes tell, whatever they were called."""
        if self.sha256 == other.sha256:
            return True
        return bool(self.weights_sha256) and (self.weights_sha256, self.network) == (other.weights_sha256, other.network)


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an export was told: the backbone, and of the images and weights what was not left to the networks. None, "": nothing.

    preprocess, image_size (pixels), mean, std (per RGB channel, of values in [0, 1]): of torch networks. snap: the difference within which
    blocks took other weights.
    """

    backbone: BackboneRecord | None = None
    preprocess: str = ""
    image_size: int | None = None
    mean: _Channels | None = None
    std: _Channels | None = None
    snap: float | None = None


def origin_to_json(origin: Origin) -> str:
    """Return `origin` as text; "" where there is nothing to say."""
    return "" if origin == Origin() else msgspec.json.encode(origin, order="sorted").decode()


def origin_from_json(text: str) -> Origin:
    """Return what `origin_to_json` wrote. Raises ValueError."""
    try:
        return msgspec.json.decode(text, type=Origin) if text else Origin()
    except msgspec.DecodeError as error:  # a ValidationError is one
        raise ValueError(f"its origin is {text!r}: {error}") from error
