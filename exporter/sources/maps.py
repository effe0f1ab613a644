"""Maps of classes per row, which scikit-learn's converters end in: back into the vectors that they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from contract.dtypes import Array

_ML = "ai.onnx.ml"
_KEYS = ("classlabels_strings", "classlabels_int64s")


@dataclass(frozen=True)
class MapOutput:
    """An output that is a map per row. name: the output's. keys: of the map, in the order of the vector that it is made of."""

    name: str
    keys: tuple[int | str, ...]

    def vectors(self, rows: Sequence[Mapping[int | str, float]]) -> Array:
        """Return `rows`, as ONNX Runtime gives them, as float32 of shape (n, classes)."""
        return np.array([[row[key] for key in self.keys] for row in rows], np.float32).reshape(len(rows), len(self.keys))


def is_zip_map(node: onnx.NodeProto) -> bool:
    """Return whether `node` makes a map per row of a vector per row."""
    return (node.op_type, node.domain) == ("ZipMap", _ML)


def map_outputs(file: Path) -> dict[str, MapOutput]:
    """Return the outputs of the network in `file` that are maps, by the names of the vectors that they are made of."""
    graph = onnx.load(file, load_external_data=False).graph
    outputs = {value.name for value in graph.output}
    makers = [node for node in graph.node if is_zip_map(node) and node.output[0] in outputs]
    return {node.input[0]: MapOutput(node.output[0], _keys(node)) for node in makers}


def _keys(node: onnx.NodeProto) -> tuple[int | str, ...]:
    values = [onnx.helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name in _KEYS]
    return tuple(key.decode("utf-8", "replace") if isinstance(key, bytes) else int(key) for part in values for key in part)
