"""The online half: reads a model repository and answers requests over HTTP and gRPC. Never imports torch."""

import contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
