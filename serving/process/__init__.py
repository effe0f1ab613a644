"""What keeps the process of a server in order: threads, sockets, signals, memory."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "threads": ["DaemonPool", "to_thread"],
        "work_pool": ["WorkPool"],
        "loop_thread": ["LoopThread"],
        "sockets": ["listening_socket"],
        "memory": ["malloc_trim", "resident_bytes"],
    },
)
