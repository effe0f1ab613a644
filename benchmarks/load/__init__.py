"""A running server under load: closed and open loop, mixes of tasks, MLPerf's scenarios, and what the bare engine would answer."""

from contract.lazy import public

__all__, __getattr__ = public(
    __name__,
    {
        "benchmark": ["run"],
    },
)
