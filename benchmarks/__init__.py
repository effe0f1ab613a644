"""Measurements that a person decides with: each a function that returns data."""

import contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
