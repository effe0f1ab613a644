"""Element types in the words of the v2 protocol, numpy, ONNX and ONNX Runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
BYTES = "BYTES"
# BYTES tensors are arrays of Python bytes objects. BF16 is missing: numpy has no such type.
NUMPY_DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    BYTES: np.dtype(np.object_),
}
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
# ONNX's words (of TensorProto.DataType) where they are others than the protocol's.
_ONNX_WORDS = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", BYTES: "STRING"}
_FROM_ONNX = {word: name for name, word in _ONNX_WORDS.items()}
# ONNX Runtime's words, as its sessions and values tell them.
RUNTIME_DTYPES = {f"tensor({_ONNX_WORDS.get(name, name).lower()})": name for name in NUMPY_DTYPES}


def onnx_dtype(name: str) -> str:
    """Return ONNX's word for the protocol's `name`."""
    return _ONNX_WORDS.get(name, name)


def dtype_of_onnx(word: str) -> str:
    """Return the protocol's name for ONNX's `word`."""
    return _FROM_ONNX.get(word, word)


def dtype_name(array: NDArray[np.generic]) -> str:
    """Return the protocol's word for the element type of `array`, or numpy's own where the protocol has none."""
    dtype = array.dtype
    return _NAMES[dtype] if dtype in _NAMES else str(dtype)  # str of a dtype is slow, for every request
