"""The offline half's heart: finds by content what task models share, and writes it as a model repository."""

import contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
from contract.lazy import public

# `deploy` is not among them: `exporter.deploy` is the module.

__all__, __getattr__ = public(
    __name__,
    {
        "add": ["AddOptions", "AddReport", "add_tasks"],
        "deploy": ["Deployment", "VersionChange", "promote", "rollback"],
        "errors": ["ExportError"],
        "export": ["ExportOptions", "ExportReport", "export_repository"],
        "gc": ["collect_garbage", "unused_segments"],
        "open_models": ["open_sources"],
        "remove": ["Removal", "remove_tasks"],
    },
)
