"""The offline half's heart: finds by content what task models share, and writes it as a model repository."""

import contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
