"""The ground floor: what tuning, exporter and serving agree on. Imports nothing of the other packages, no torch and no ONNX Runtime."""
