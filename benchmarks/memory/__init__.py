"""Resident memory and disk: shared against separate."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
        "measure": ["MemoryComparison", "compare_memory"],
    },
)
