"""Counts multiply-accumulates, forward and backward, by torch's counter, which is wrong about one thing.

Of a grouped convolution it takes the gradient of the weights for that of a whole one: a depthwise one, as in EfficientNet and MobileNet,
would count as hundreds of times what it is. Each of the two gradients takes what the forward pass takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def counted_macs() -> Iterator[Callable[[], int]]:
    """Count what runs meanwhile, in any thread; gives a function that returns the count so far."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_flops}) as counter:
        yield lambda: int(counter.get_total_flops()) // 2


def _backward_flops(
    grad: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: object,
    wanted: Sequence[bool],
    out_shape: object = None,
) -> int:
    """Return the operations of a convolution's gradients, two for each multiply-accumulate. wanted: of inputs, of weights, of the bias."""
    outputs, places = (inputs, weight) if transposed else (grad, weight)
    forward = 2 * outputs[0] * math.prod(outputs[2:]) * math.prod(places)
    return forward * sum(map(bool, wanted[:2]))
