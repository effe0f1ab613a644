from __future__ import annotations

import asyncio

from benchmarks.harness.timing import interleave


def test_variants_take_turns_and_warm_up() -> None:
    calls: list[str] = []

    async def call(name: str) -> None:
        calls.append(name)

    timings = asyncio.run(interleave({"a": lambda: call("a"), "b": lambda: call("b")}, rounds=3, warmup=2))
    assert "".join(calls) == "ab" * 5
    assert timings["a"].runs == 3
    assert timings["a"].low_ms <= timings["a"].median_ms <= timings["a"].high_ms
