"""Open sessions by segment: opened on first use, closed when memory is needed, their files kept."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "runtime": ["Precision", "Runtime", "RuntimeKind", "SegmentFile", "SessionStoreOptions"],
        "store": ["SessionStore"],
    },
)
