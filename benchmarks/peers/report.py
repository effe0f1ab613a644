"""The rows as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.peers.measure import Plan, Row

_MEGABYTE = 10**6


def table(rows: Sequence[Row], plan: Plan) -> str:
    """Return the rows as a Markdown table; below it, those that could not be measured, and why."""
    present = [row for row in rows if not row.missing]
    head = ["peer", "variant", "protocol"]
    head += [f"{count} task{'s' * (count > 1)}, ms" for count in plan.counts]
    head += [f"{count} task{'s' * (count > 1)}, requests/s" for count in plan.counts if plan.seconds]
    head += ["memory, MB", "lines"]
    lines = [_line(head), _line(["---"] * len(head)), *(_line(_cells(row, plan)) for row in present)]
    missing = [f"- {row.peer}, {row.variant}: not measured, for {row.missing}" for row in rows if row.missing]
    return "\n".join([*lines, *([""] if missing else []), *missing])


def to_json(rows: Sequence[Row], plan: Plan) -> str:
    """Return all that was measured, with the machine and the plan."""
    data: dict[str, Any] = {
        "benchmark": "peers",
        "machine": describe_machine(),
        "plan": asdict(plan),
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(data, indent=1) + "\n"


def _cells(row: Row, plan: Plan) -> list[str]:
    latency = [row.latency[count] for count in plan.counts]
    cells = [f"{row.peer} ({row.version})", row.variant, row.protocol]
    cells += [f"{timing.median_ms:.1f} ({timing.low_ms:.1f}-{timing.high_ms:.1f})" for timing in latency]
    cells += [f"{row.per_s[count]:.1f}" for count in plan.counts if plan.seconds]
    return [*cells, f"{row.memory_bytes / _MEGABYTE:.0f}", str(row.lines)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
