"""What a server holds when nobody asks (Linux)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness.http_wire import KeptConnection, request_bytes
from benchmarks.harness.served import ServerProcess

_GAUGE = re.compile(r"^(espalier_(?:pending|queued|waiting|open)\w*)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_LOOK_S = 0.5
_MORE_MEMORY = 1.02


@dataclass(frozen=True)
class Holds:
    """gauges: of what waits, by name, over all labels; they are zero at rest."""

    resident_bytes: int
    descriptors: int
    threads: int
    gauges: Mapping[str, float]

    def more_than(self, before: Holds, memory: float = _MORE_MEMORY) -> list[str]:
        """Return a line for everything that is more than it was. memory: how many times as much may be resident."""
        lines = [f"{name} is {value:g} at rest" for name, value in self.gauges.items() if value]
        then, now = asdict(before), asdict(self)
        lines += [f"{name}: {then[name]}, now {now[name]}" for name in ("descriptors", "threads") if now[name] > then[name]]
        if self.resident_bytes > memory * before.resident_bytes:
            lines.append(f"resident: {before.resident_bytes / 1e6:.1f} MB, now {self.resident_bytes / 1e6:.1f}")
        return lines


async def _holds(server: ServerProcess) -> Holds:
    """Return what `server` holds now."""
    connection = await KeptConnection.open(server.http_host_port)
    text = (await connection.ask(request_bytes("GET", "/metrics"))).body.decode()
    await connection.close()
    gauges: dict[str, float] = {}
    for name, value in _GAUGE.findall(text):
        gauges[name] = gauges.get(name, 0.0) + float(value)
    folder = Path(f"/proc/{server.pid}")
    descriptors, threads = (len([*(folder / kind).iterdir()]) for kind in ("fd", "task"))
    return Holds(server.resident_bytes(), descriptors, threads, gauges)


async def at_rest(server: ServerProcess, before: Holds | None, seconds: float) -> Holds:
    """Return what `server` holds as soon as that is no more than `before`, or after `seconds`; None: after these in any case."""
    end = time.monotonic() + seconds
    while (now := await _holds(server)) and time.monotonic() < end and (before is None or now.more_than(before)):
        await asyncio.sleep(_LOOK_S)
    return now
