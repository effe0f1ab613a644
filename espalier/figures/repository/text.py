"""Words of the picture, short enough for the room that they have."""

from __future__ import annotations

from contract.repository import Repository, Segment, TensorSpec
from contract.units import human_bytes, human_macs
from espalier.figures.text import DASH, ELLIPSIS, TIMES, shorten

MACS, WEIGHTS = "macs", "weights"


def module_range(segment: Segment, limit: int) -> str:
    """Return the first and the last module of `segment` in at most `limit` characters, or its blocks if no module is known."""
    if not segment.modules:
        first, last = segment.blocks
        return shorten(f"block {first}" if first == last else f"blocks {first}{DASH}{last}", limit)
    first_module, last_module = segment.modules[0], segment.modules[-1]
    if first_module == last_module:
        return shorten(first_module, limit)
    if len(first_module) + len(last_module) < limit:
        return f"{first_module}{DASH}{last_module}"
    half = (limit - 1) // 2
    return f"{shorten(first_module, half)}{DASH}{shorten(last_module, half)}"


def amount(cost: float, unit: str) -> str:
    """Return `cost` for people, in MACs or bytes as `unit` says."""
    return (human_macs if unit == MACS else human_bytes)(round(cost))


def share(part: float, whole: float) -> str:
    """Return `part` of `whole` in per cent."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return "<0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 0.95 else f"{percent:.0f} %"


def times_less(shared: float, separate: float) -> str:
    """Return how many times less `shared` is than `separate`."""
    return f"{separate / shared:.1f}x less" if shared and f"{separate / shared:.1f}" != "1.0" else "no less"


def output_detail(repository: Repository, output: str) -> str:
    """Return the labels of a task, the first few if there are many, or else the shape of its output."""
    if output in repository.tasks and repository.tasks[output].labels:
        labels = repository.tasks[output].labels
        listed = ", ".join(shorten(label, 14) for label in labels[:3])
        return listed if len(labels) <= 3 else f"{len(labels)} labels: {listed}, {ELLIPSIS}"
    spec = next(spec for task in repository.tasks.values() for spec in task.outputs if spec.name == output)
    return describe_tensor(spec)


def describe_tensor(spec: TensorSpec) -> str:
    """Return a tensor's type and the shape of one row."""
    return " ".join([spec.dtype, f" {TIMES} ".join(map(str, spec.shape))]).strip()
