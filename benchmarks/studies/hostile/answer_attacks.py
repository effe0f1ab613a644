"""Requests whose answers are large: in JSON they are several times what was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod

import numpy as np

from benchmarks.harness.http_wire import request_bytes
from benchmarks.studies.hostile.attack import Attack, promised
from benchmarks.studies.hostile.send import http
from contract.dtypes import NUMPY_DTYPES
from contract.repository import ALL_TASKS, Repository

_JSON_BYTES = 20  # of a float32, with its comma; from 19 to 22


def answer_attacks(repository: Repository, size: int) -> Iterator[Attack]:
    """Yield requests of about `size` bytes for all outputs of all tasks, which take one input; they are answered."""
    (spec,) = next(iter(repository.tasks.values())).inputs
    rows = size // (prod(spec.shape) * NUMPY_DTYPES[spec.dtype].itemsize)
    values = rows * sum(prod(output.shape) for task in repository.tasks.values() for output in task.outputs)
    blob = np.zeros((rows, *spec.shape), NUMPY_DTYPES[spec.dtype]).tobytes()
    for name, binary in (("JSON", False), ("binary", True)):
        tensor = {"name": spec.name, "datatype": spec.dtype, "shape": [rows, *spec.shape]}
        request = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}],
            "parameters": {"binary_data_output": binary},
        }
        head = json.dumps(request).encode()
        length = f"Inference-Header-Content-Length: {len(head)}"
        sent = request_bytes("POST", f"/v2/models/{ALL_TASKS}/infer", "Connection: close", length, body=head + blob)
        budget = promised(body=len(head) + len(blob), answer=values * (4 if binary else _JSON_BYTES))
        yield Attack(f"a large answer, {name}", http(sent, reads=True), frozenset(("200",)), budget)
