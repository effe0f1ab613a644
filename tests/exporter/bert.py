"""A tiny BERT as ONNX: embeddings of ids and token types, attention, perhaps with a mask, and a head; its length may be free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper

WIDTH, LENGTH, WORDS = 6, 5, 11


@dataclass
class Bert:
    """int64 (batch, 5) ids, token types and, if `masked`, a mask -> layers -> (batch, 3). Equal seeds, equal weights.

    length: what the second axis is called where it is free; the table of positions has `positions` rows then. tokens: a head per token.
    mean: a head on the mean of "all" tokens, those among them that do not count, or of those that are "counted".
    """

    layers: Sequence[int] = (10, 20, 30)
    head: int = 90
    masked: bool = False
    length: str = ""
    tokens: bool = False
    mean: str = ""
    positions: int = LENGTH
    words: int = WORDS
    _nodes: list[NodeProto] = field(default_factory=list)
    _weights: list[TensorProto] = field(default_factory=list)

    def model(self) -> ir.Model:
        self._nodes, self._weights = [], []
        mask = self._mask() if self.masked else ""
        x = self._embeddings()
        for index, seed in enumerate(self.layers):
            x = self._layer(f"layer{index}", x, seed, mask)
        if self.mean:
            x = self._mean(x)
        first = x if self.tokens else self._node("Gather", "first", x, self._weight("zero", np.array(0, np.int64)), axis=1)
        self._node("MatMul", "logits", first, self._normal("head", self.head, WIDTH, 3))
        names = ["input_ids", *(["attention_mask"] if self.masked else []), "token_type_ids"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", self.length or LENGTH]) for name in names]
        sizes = ["batch", self.length or LENGTH, 3] if self.tokens else ["batch", 3]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, sizes)
        graph = helper.make_graph(self._nodes, "bert", inputs, [logits], self._weights)
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))

    def _embeddings(self) -> str:
        words = self._node("Gather", "words", self._normal("word table", 1, self.words, WIDTH), "input_ids")
        types = self._node("Gather", "types", self._normal("type table", 2, 2, WIDTH), "token_type_ids")
        both = self._node("Add", "both", words, types)
        places = self._normal("places", 3, 1, self.positions, WIDTH)
        if self.length:
            shape = self._node("Shape", "shape", "input_ids")
            end = self._node("Slice", "end", shape, *(self._weight(f"at {n}", np.array([n], np.int64)) for n in (1, 2)))
            start, axis = (self._weight(f"places from {n}", np.array([n], np.int64)) for n in (0, 1))
            places = self._node("Slice", "used places", places, start, end, axis)
        x = self._node("Add", "embedded", both, places)
        ones, zeros = (self._weight(f"norm {value}", np.full(WIDTH, value, np.float32)) for value in (1, 0))
        return self._node("LayerNormalization", "normalised", x, ones, zeros)

    def _mask(self) -> str:
        """0 where a token counts, and -10,000 elsewhere, as (batch, 1, 5): what every layer adds to its scores."""
        numbers = self._node("Cast", "mask numbers", "attention_mask", to=TensorProto.FLOAT)
        inverted = self._node("Sub", "mask inverted", self._weight("one", np.array(1, np.float32)), numbers)
        large = self._node("Mul", "mask large", inverted, self._weight("large", np.array(-1e4, np.float32)))
        return self._node("Unsqueeze", "mask", large, self._weight("axis", np.array([1], np.int64)))

    def _mean(self, x: str) -> str:
        tokens = self._weight("tokens", np.array([1], np.int64))
        if self.mean == "all":
            return self._node("ReduceMean", "mean", x, tokens, keepdims=1)
        counts = self._node("Unsqueeze", "counts", "mask numbers", self._weight("last", np.array([2], np.int64)))
        sums = (("sum", self._node("Mul", "kept", x, counts)), ("count", counts))
        return self._node("Div", "mean", *(self._node("ReduceSum", name, values, tokens, keepdims=1) for name, values in sums))

    def _layer(self, name: str, x: str, seed: int, mask: str) -> str:
        query, key, value = (
            self._node("MatMul", f"{name}.{part}", x, self._normal(f"{name}.{part}.weight", seed + index, WIDTH, WIDTH))
            for index, part in enumerate(("query", "key", "value"))
        )
        turned = self._node("Transpose", f"{name}.turned", key, perm=[0, 2, 1])
        scores = self._node("MatMul", f"{name}.scores", query, turned)
        if mask:
            scores = self._node("Add", f"{name}.masked", scores, mask)
        attention = self._node("Softmax", f"{name}.attention", scores, axis=-1)
        mixed = self._node("MatMul", f"{name}.mixed", attention, value)
        return self._node("Tanh", f"{name}.out", self._node("Add", f"{name}.sum", x, mixed))

    def _node(self, op: str, output: str, *inputs: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], name=f"node {output}", **attributes))
        return output

    def _normal(self, name: str, seed: int, *shape: int) -> str:
        return self._weight(name, np.random.default_rng(seed).standard_normal(shape).astype(np.float32))

    def _weight(self, name: str, array: np.ndarray) -> str:
        self._weights.append(numpy_helper.from_array(array, name))
        return name
