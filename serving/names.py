"""Names of tensors in requests: a task knows its own as its network's file calls them, too, and answers in the words of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from contract.dtypes import Array
from contract.errors import InvalidRequest
from contract.units import quoted
from serving.catalog import Model
from serving.requests import InferRequest, RequestedOutput


def in_own_words(model: Model, request: InferRequest) -> tuple[InferRequest, Mapping[str, str]]:
    """Return `request` for `model` in the repository's names, and what the answer calls the outputs, by these; {}: by these.

    A request that names no outputs gets them as metadata calls them, or, if it calls an input by a name in the repository that metadata
    does not say, by their names in the repository. Raises InvalidRequest for a tensor that comes under two names.
    """
    if not model.names:
        return request, {}
    inputs: dict[str, Array] = {}
    said: dict[str, str] = {}
    for name, array in request.inputs.items():
        own = model.own_inputs.get(name, name)
        if own in inputs:
            raise InvalidRequest(f"Input {quoted(name)} is what {quoted(said[own])} is, too; send it once, under one name.")
        inputs[own], said[own] = array, name
    outputs = tuple(
        RequestedOutput(model.own_outputs.get(output.name, output.name), output.classes) for output in request.outputs
    )
    if request.outputs:
        called = {own.name: output.name for own, output in zip(outputs, request.outputs, strict=True)}
    elif any(name == own != model.shown(own) for own, name in said.items()):
        called = {}
    else:
        called = {name: model.shown(name) for name in model.outputs}
    return replace(request, inputs=inputs, outputs=outputs), called
