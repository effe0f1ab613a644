"""The border between foreign models and the libraries that take them apart, which were written for well-formed ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import onnx_ir as ir

from exporter.errors import ExportError, UnsupportedModel
from exporter.graph.chain import Chain, make_chain
from exporter.graph.passes import canonicalise
from exporter.graph.shapes import infer_shapes
from exporter.sources.onnx_file import first_line

MAX_NODES = 1_000_000  # after functions are inlined
MAX_TENSOR_VALUES = 2**31  # 8 GiB of float32: no tensor of one row of a network is as large


def analyse(name: str, model: ir.Model) -> tuple[ir.Model, Chain]:
    """Return the canonical form of `model`, which is changed in place, and its chain. Raises UnsupportedModel, as below."""
    canonical = canonical_form(name, model)
    with guarded(name):
        return canonical, make_chain(name, canonical)


def canonical_form(name: str, model: ir.Model) -> ir.Model:
    """Return the canonical form of `model`, which is changed in place. Raises UnsupportedModel, as below."""
    with guarded(name):
        _check_inlined_size(name, model)
        _check_tensor_sizes(name, model)
        return canonicalise(model)


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Raise UnsupportedModel, naming the model, for whatever goes wrong in the block; what a library raised is kept as its cause."""
    try:
        yield
    except ExportError:
        raise
    except MemoryError as error:
        raise UnsupportedModel(name, "a constant in its graph is too large to compute.") from error
    except Exception as error:
        raise UnsupportedModel(name, f"its graph cannot be analysed ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    """Return what the innermost of chained exceptions says: libraries wrap the reason in "an error occurred when running pass"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _check_inlined_size(name: str, model: ir.Model) -> None:
    """Functions that call functions can double their size at every level, or call themselves."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(nodes: Counter[ir.OperatorIdentifier], above: tuple[ir.OperatorIdentifier, ...]) -> int:
        return sum(count * (function_size(key, above) if key in model.functions else 1) for key, count in nodes.items())

    def function_size(key: ir.OperatorIdentifier, above: tuple[ir.OperatorIdentifier, ...]) -> int:
        if key in above:
            raise UnsupportedModel(name, f"its function {key[1]!r} calls itself.")
        if key not in sizes:
            sizes[key] = size(_operators(model.functions[key]), (*above, key))
        return sizes[key]

    if size(_operators(model.graph), ()) > MAX_NODES:
        raise UnsupportedModel(name, f"its functions come to more than {MAX_NODES:,} nodes.")


def _operators(nodes: ir.Graph | ir.Function) -> Counter[ir.OperatorIdentifier]:
    return Counter(node.op_identifier() for node in nodes.all_nodes())


def _check_tensor_sizes(name: str, model: ir.Model) -> None:
    """Folding constants computes them, however large they claim to be."""
    for value, shape in infer_shapes(model, batch=1).items():
        if prod(shape) > MAX_TENSOR_VALUES:
            raise UnsupportedModel(
                name, f"the tensor {value!r} is larger than any in a network that can be served ({list(shape)})."
            )
