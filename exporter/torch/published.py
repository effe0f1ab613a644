"""What a task was tuned on, by the word of its checkpoint: published weights are found again by name; of all else people are told."""

from __future__ import annotations

from collections.abc import Iterable

import timm

from tuning.network.backbone import BackboneSpec
from tuning.network.packaged import PACKAGED_WEIGHTS

_SHOWN = 12  # digits of a hash


def published_backbone(specs: Iterable[BackboneSpec]) -> str:
    """Return by which name all of `specs`, of one network, are published; "" where they are not, or are several networks."""
    names = {_published_name(spec) for spec in specs}
    return names.pop() if len(names) == 1 else ""


def tuned_on(spec: BackboneSpec) -> str:
    """Return what `spec` is, for people."""
    return f"{spec.library}/{spec.name} with the weights {spec.weights!r} (their SHA-256 is {spec.weights_sha256[:_SHOWN]}...)"


def _published_name(spec: BackboneSpec) -> str:
    packaged = spec.weights.partition(",")[0]
    if packaged in PACKAGED_WEIGHTS:
        return packaged
    if spec.library == "torchvision":
        return f"torchvision/{spec.name}" if spec.weights == "DEFAULT" else ""
    base = spec.name.partition(".")[0]
    name = f"{base}.{spec.weights}"
    return name if name in timm.list_pretrained(f"{base}.*") else ""
