"""Measurements that a person decides with: each a function that returns data."""

import contract  # noqa: F401  (before ONNX Runtime is imported: it says that nothing is to be reported)
from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "framework.benchmark": ["Benchmark"],
        "framework.errors": ["BenchmarkError"],
        "framework.options": ["Options", "Scale"],
        "framework.record": ["Record", "read_record", "run_benchmark"],
        "framework.result": ["Result"],
        "registry": ["BENCHMARKS", "check_precisions", "find_benchmarks"],
    },
)
