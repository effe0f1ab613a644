"""What a torch network returns, as tensors with names: one tensor, or a dict or a tuple of them, whatever class derives from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor, nn

from exporter.errors import FailingForward, UnsupportedOutput

_ONLY = "logits"  # what the output of a network is called that returns one tensor


def run_network(name: str, network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what `network` gives for `images`, by output: each tensor has as many rows.

    name: how to call the network. Raises FailingForward for whatever its code raises, UnsupportedOutput.
    """
    try:
        with torch.inference_mode():
            returned = network(images)
    except Exception as error:
        raise FailingForward(name, tuple(images.shape), type(error).__name__, str(error)) from error
    outputs = _named(name, returned)
    _refuse_repeated(name, outputs, images)
    for output, tensor in outputs.items():
        if tensor.ndim == 0 or tensor.shape[0] != len(images):
            what = f"{output!r} of shape {tuple(tensor.shape)} for {len(images)} images, and no row for each"
            raise UnsupportedOutput(name, what)
    return outputs


def flatten(returned: object) -> Tensor | tuple[Tensor, ...]:
    """Return what a network returned as torch's exporter takes it: the tensors in the order of their names."""
    if isinstance(returned, Tensor):
        return returned
    return tuple(_named("The network", returned).values())


def name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Call the outputs of `model` by `names`, in place; what has such a name inside, and an output named like an input, get others."""
    graph = model.graph
    taken = {value.name for value in graph.inputs}
    wanted = [f"{name}_output" if name in taken else name for name in names]
    inner = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in inner:
        if value.name in wanted and not value.is_graph_output():
            value.name = f"{value.name}_inner"
    for index, value in enumerate(graph.outputs):
        value.name = f"output_{index}_unnamed"
    for value, name in zip(graph.outputs, wanted, strict=True):
        value.name = name


def _named(name: str, returned: object) -> dict[str, Tensor]:
    if isinstance(returned, Tensor):
        return {_ONLY: returned}
    kind, members = type(returned).__name__, _members(returned)
    if not members:
        raise UnsupportedOutput(name, f"an empty {kind}" if isinstance(returned, (Mapping, tuple, list)) else f"a {kind}")
    named = {output: value for output, value in members.items() if isinstance(value, Tensor)}
    for output in (output for output in members if output not in named):
        what = "None" if members[output] is None else f"a {type(members[output]).__name__}"
        raise UnsupportedOutput(name, f"a {kind} in which {output!r} is {what}")
    return named


def _refuse_repeated(name: str, outputs: Mapping[str, Tensor], images: Tensor) -> None:
    """Raise UnsupportedOutput for a tensor that is there twice, or is what the network was given."""
    seen: dict[str, Tensor] = {}
    for output, tensor in outputs.items():
        if tensor.is_set_to(images):
            raise UnsupportedOutput(name, f"what it is given as {output!r}", "leave it out")
        if other := next((other for other, earlier in seen.items() if tensor.is_set_to(earlier)), None):
            raise UnsupportedOutput(name, f"one tensor as {other!r} and as {output!r}", "leave one out")
        seen[output] = tensor


def _members(returned: object) -> dict[str, object]:
    """Return what is in a dict by its keys, in a named tuple by its fields, in a tuple or list as output_0, ...; of others nothing."""
    if isinstance(returned, Mapping):
        return {str(key): value for key, value in returned.items()}
    if isinstance(returned, (tuple, list)):
        fields = getattr(returned, "_fields", None) or [f"output_{index}" for index in range(len(returned))]
        return dict(zip(fields, returned, strict=True))
    return {}
