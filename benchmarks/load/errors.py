"""Errors of the load benchmark."""

from __future__ import annotations

from benchmarks.framework.errors import BenchmarkError


class Refused(BenchmarkError):
    """A request that was answered with an error."""

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"The server refused a request ({status}): {reason}")

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return Refused, (self.status, self.reason)  # it crosses from the clients' process


class LoadGenMissing(BenchmarkError):
    """MLPerf's load generator is not installed."""

    def __init__(self) -> None:
        super().__init__("MLPerf's scenarios need its load generator; install it with `pip install 'espalier[bench]'`.")
