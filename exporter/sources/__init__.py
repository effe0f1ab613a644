"""Files that anyone may have written: read without trusting them, and what a user says about them."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "onnx_file": ["load_onnx"],
        "references": ["InputOptions", "find_tasks", "parse_reference"],
        "sandbox": ["analyse"],
        "task_model": ["LoadTaskModel", "Sources", "TaskModel"],
    },
)
