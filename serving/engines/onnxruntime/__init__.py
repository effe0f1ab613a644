"""ONNX Runtime: opening sessions, running them, and its caches."""
