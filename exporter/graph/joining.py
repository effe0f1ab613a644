"""Joins the parts of a network that are not worth a cut between them: a cut point is always in front of something that a task may have
changed.

What stands before the first MAC (the preprocessing) goes to the part after it: nobody tunes it, and a cut there would send whole images
between segments. Of the parts without weights behind one with weights, those go to it that come before the smallest tensor (an
activation, a pooling), the others to the part after them (a Resize, a Pad, a DequantizeLinear). Where tensors are of one size it is the
last of them, so that an operator and its activation stay together; where another network is cut behind that, it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from exporter.graph.macs import is_product
from exporter.graph.partition import Part, Test

# Operators whose further inputs are no weights: scales and sizes.
_PARAMETERS = frozenset(("DequantizeLinear", "Resize", "Upsample", "Pad", "Expand"))


class Joiner:
    """Joins neighbours on one way through a network.

    row_bytes: the size of one row of a tensor. known: whether a tensor is a tap in another network. is_image: whether it is an input of
    the network, and not of a part of one.
    """

    def __init__(self, row_bytes: Callable[[ir.Value], int], known: Test, is_image: Test) -> None:
        self._row_bytes, self._known, self._is_image = row_bytes, known, is_image

    def join(self, parts: Sequence[Part]) -> list[Part]:
        """Return `parts`, which follow each other, with fewer cuts between them."""
        runs = self._runs(parts)
        joined, carried = list[Part](), list[Part]()
        for index, run in enumerate(runs):
            kept = len(run) if index == len(runs) - 1 else self._kept(run)
            if kept:
                joined.append(_joined([*carried, *run[:kept]], len(carried)))
                carried = []
            carried += run[kept:]
        return joined

    def _runs(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Divide `parts` in front of those with weights."""
        runs: list[list[Part]] = []
        for part in parts:
            if runs and self._is_preprocessing(runs[0][0]):
                runs[0][0] = _joined([runs[0][0], part])
            elif runs and not _has_weights(part) and not (len(part.inputs) > 1 and self._makes_less(runs[-1])):
                runs[-1].append(part)
            else:
                runs.append([part])
        return runs

    def _kept(self, run: Sequence[Part]) -> int:
        """Return how many parts of `run` are to be before the cut; 0 where all can go to what follows, which has weights."""
        # What has products, or takes a further tensor, stays where it is.
        fixed = [count for count, part in enumerate(run, 1) if has_products(part) or len(part.inputs) > 1]
        least = max(fixed, default=int(_has_weights(run[0])))
        places = (run[0].inputs[0], *(part.outputs[0] for part in run))
        ends = {count: value for count, value in enumerate(places) if count >= least}
        kept = min(ends, key=lambda count: (self._row_bytes(ends[count]), -count))
        # A place before that is found by whoever looks into blocks for taps of others.
        return max((count for count, value in ends.items() if count > kept and self._known(value)), default=kept)

    def _makes_less(self, run: Sequence[Part]) -> bool:
        """Whether `run` quantises, so that it is to be in front of a border, while what takes several tensors stands behind one."""
        if any(len(part.inputs) > 1 or has_products(part) for part in run):
            return False
        return self._row_bytes(run[-1].outputs[0]) < self._row_bytes(run[0].inputs[0])

    def _is_preprocessing(self, part: Part) -> bool:
        return self._is_image(part.inputs[0]) and not has_products(part)


def has_products(part: Part) -> bool:
    """Whether `part` has MACs."""
    return any(is_product(node) for node in part.nodes)


def _has_weights(part: Part) -> bool:
    """Whether a task may have tuned the part: it holds fractions, or numbers of any kind that a product takes.

    What says how large a result is, or by which scale a DequantizeLinear takes a tensor, is none; what that makes a weight of is.
    """
    return any(_is_weight(value, node, position) for node in part.nodes for position, value in enumerate(node.inputs))


def _is_weight(value: ir.Value | None, node: ir.Node, position: int) -> bool:
    if value is None or not value.is_initializer():
        return False
    if node.op_type in _PARAMETERS:
        return position == 0
    return (value.dtype is not None and value.dtype.is_floating_point()) or is_product(node)


def _joined(parts: Sequence[Part], carried: int = 0) -> Part:
    """Return `parts`, each behind the one before it, as one. carried: how many of them, the first, might stand before it as well."""
    nodes = [node for part in parts for node in part.nodes]
    inputs = dict.fromkeys((*parts[0].inputs, *(value for part in parts[1:] for value in part.inputs[1:])))
    might = [node for part in parts[:carried] for node in part.nodes]
    return Part(tuple(nodes), tuple(inputs), parts[-1].outputs, parts[0].carried | frozenset(might))
