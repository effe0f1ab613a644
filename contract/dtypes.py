"""The v2 protocol's words for element types, and numpy's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def dtype_name(array: NDArray[np.generic]) -> str:
    """Return the protocol's word for the element type of `array`, or numpy's own where the protocol has none."""
    dtype = array.dtype
    return _NAMES[dtype] if dtype in _NAMES else str(dtype)  # str of a dtype is slow, for every request
