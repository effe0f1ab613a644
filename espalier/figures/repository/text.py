"""Words of the picture, short enough for the room that they have."""

from __future__ import annotations

from dataclasses import dataclass

from contract.repository import Repository, Segment, TensorSpec
from contract.units import human_bytes, human_macs
from espalier.figures.text import DASH, ELLIPSIS, TIMES, characters, shorten, text_width

MACS, WEIGHTS = "macs", "weights"
LABEL_SIZE = 10.0
NAME_SIZE = 12.0
LINE_HEIGHT = 13.0
_PAD = 4.0
_OVERHANG = 32.0  # how far a line above its box may go beyond it


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


def _share(part: float, whole: float) -> str:
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
    return " ".join([spec.dtype, f" {TIMES} ".join(map(str, spec.named_shape))]).strip()


@dataclass(frozen=True)
class RunLabel:
    """One or two lines; a box that is too thin for them has them above it."""

    lines: tuple[str, ...]
    inside: bool

    @property
    def height_above(self) -> float:
        """Return the height that is needed above the box."""
        return 0.0 if self.inside else LINE_HEIGHT * len(self.lines) + 1


def label_run(segment: Segment, streams: int, cost: int, total: int, unit: str, thickness: float, width: float) -> RunLabel:
    """Return the label of `segment` in a box of `width` and `thickness` points, whose `cost` is a part of `total`."""
    each = amount(cost / streams, unit)
    counted = f"{streams} {TIMES} {each}" if streams > 1 and unit != WEIGHTS else amount(cost, unit)
    costs = f"{counted} · {_share(cost, total)}"
    modules = module_range(segment, characters(width - _PAD, LABEL_SIZE))
    together = f"{modules} · {costs}"
    length = text_width(together, LABEL_SIZE)
    if thickness >= 2 * LINE_HEIGHT + 2:
        return RunLabel((modules, costs), inside=True)
    if length <= width - _PAD and thickness >= LINE_HEIGHT + 2:
        return RunLabel((together,), inside=True)
    return RunLabel((together,) if length <= width + _OVERHANG else (modules, costs), inside=False)
