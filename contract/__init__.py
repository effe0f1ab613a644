"""The ground floor: what tuning, exporter and serving agree on. Imports nothing of the other packages, no torch and no ONNX Runtime."""

import os

from contract.lazy import public

# ONNX Runtime 1.31 for Linux keeps a device id in the user's cache and reports its use to its makers, unless it is told not to before it is
# loaded. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__, __getattr__ = public(
    __name__,
    {
        "costs": ["Cost", "separate_cost", "shared_cost"],
        "errors": ["EspalierError", "InvalidRequest", "NotWritten", "RepositoryError", "UnknownTask"],
        "plan": ["ExecutionPlan", "PlanStep", "make_plan"],
        "preprocessing": ["Preprocessing"],
    },
)
