"""The ground floor: what tuning, exporter and serving agree on. Imports nothing of the other packages, no torch and no ONNX Runtime."""

import os

# ONNX Runtime 1.31 for Linux keeps a device id in the user's cache and reports its use to its makers, unless it is told not to before it is
# loaded. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
