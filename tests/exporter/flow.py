"""Tiny networks with control flow as ONNX, built from text; weights follow from seeds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

WIDTH = 8
LOOP = """
  loops = Constant<value = int64 {3}>()
  going = Constant<value = bool {1}>()
  looped = Loop(loops, going, h) <body = body (int64 i, bool given, float[] z) => (bool go, float[] next) {
    go = Identity(given)
    product = MatMul(z, inner)
    sum = Add(product, h)
    next = Tanh(sum)
  }>
"""
SCAN = """
  start = Sub(h, h)
  parted = Reshape(h, four)
  turned = Transpose<perm = [1, 0, 2]>(parted)
  looped, every = Scan <num_scan_inputs = 1, body = body (float[] state, float[] x) => (float[] out, float[] seen) {
    part = MatMul(x, narrow)
    sum = Add(part, state)
    out = Tanh(sum)
    seen = Identity(out)
  }> (start, turned)
"""


FREE_SCAN = """
  axis = Constant<value_ints = [1]>()
  start = ReduceMax<keepdims = 0>(h, axis)
""" + SCAN.replace("start = Sub(h, h)", "").replace("parted = Reshape(h, four)", "").replace("(parted)", "(h)").replace(
    "narrow", "inner"
)
SEQUENCE = """
  loops = Constant<value = int64 {3}>()
  going = Constant<value = bool {1}>()
  none = SequenceEmpty()
  all = Loop(loops, going, none) <body = body (int64 i, bool given, seq(float[]) before) => (bool go, seq(float[]) after) {
    go = Identity(given)
    product = MatMul(h, inner)
    number = Cast<to = 1>(i)
    sum = Add(product, number)
    after = SequenceInsert(before, sum)
  }>
  looped = SequenceAt(all, two)
"""


def branches(condition: str) -> str:
    """Return an If on `condition` whose branches have a weight each."""
    return f"""{condition}
  looped = If(chosen) <then_branch = yes () => (float[] a) {{ a = MatMul(h, inner) }},
                       else_branch = no () => (float[] b) {{ p = MatMul(h, inner)  b = MatMul(p, other) }}>
"""


def network(
    middle: str = LOOP, head: int = 1, inner: int = 2, trunk: int = 3, names: str = "", opset: int = 18, row: str = str(WIDTH)
) -> ir.Model:
    """float (batch, 8) -> a layer -> `middle`, from h to looped -> a layer of 3. Equal seeds, equal weights.

    names: put behind the names of what is inside of bodies. row: the shape of what it takes, without the batch.
    """
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[batch, {row}] x) => (float[batch, 3] logits) {{
      t = MatMul(x, trunk)
      h = Relu(t)
      {middle}
      m = Softsign(looped)
      logits = MatMul(m, head)
    }}"""
    for name in ("product", "sum", "next", "given", "go", "part", "state"):
        text = text.replace(f" {name}", f" {name}{names}").replace(f"({name}", f"({name}{names}") if names else text
    proto = onnx.parser.parse_model(text)
    weights = {
        "trunk": normal(trunk, WIDTH, WIDTH),
        "head": normal(head, WIDTH, 3),
        "inner": normal(inner, WIDTH, WIDTH),
        "other": normal(inner + 1, WIDTH, WIDTH),
        "narrow": normal(inner, 2, WIDTH),
        "four": np.array([-1, 4, 2]),
        "limit": np.array(2, np.float32),
        "zero": np.array(0),
        "two": np.array(2),
    }
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items() if f" {name}" in text or f"({name}" in text
    )
    return ir.from_proto(proto)


def normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / 2).astype(np.float32)
