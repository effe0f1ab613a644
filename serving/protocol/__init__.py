"""The v2 protocol over HTTP and gRPC: wire formats only; the router decides."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "front_end": ["FrontEnd", "Service"],
        "control": ["Admin"],
        "memory_budget": ["MemoryBudget"],
        "message_limits": ["MessageLimits"],
        "shared_memory": ["SharedMemory"],
    },
)
