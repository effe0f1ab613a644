"""What reading a file had to assume or to change, kept with the model until somebody is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

_REMARKS, _LABELS, _INFINITE = "espalier_remarks", "espalier_labels", "espalier_infinite"  # in a model's `meta`


def assume(model: ir.Model, sentences: Iterable[str]) -> None:
    """Keep `sentences`, each to be read after the file's name."""
    model.meta[_REMARKS] = [*assumed(model), *sentences]


def assumed(model: ir.Model) -> tuple[str, ...]:
    """Return what was assumed of `model`."""
    return tuple(model.meta.get(_REMARKS, ()))


def set_labels(model: ir.Model, labels: Sequence[str]) -> None:
    """Keep what the file calls the classes."""
    model.meta[_LABELS] = tuple(labels)


def own_labels(model: ir.Model) -> tuple[str, ...]:
    """Return what the file calls the classes of the network's only output; () where it does not say, or has several outputs."""
    return tuple(model.meta.get(_LABELS, ())) if len(model.graph.outputs) == 1 else ()


def set_infinite(model: ir.Model, names: Sequence[str]) -> None:
    """Keep which constants have infinities among other numbers."""
    model.meta[_INFINITE] = tuple(names)


def infinite(model: ir.Model) -> tuple[str, ...]:
    """Return which constants of the file have infinities among other numbers: masks, if the network answers all the same."""
    return tuple(model.meta.get(_INFINITE, ()))
