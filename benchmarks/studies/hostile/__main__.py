"""The command: `python -m benchmarks.studies.hostile [--scale 0.1] [--only JSON,gRPC] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.machine import describe_machine
from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.hostile.attacks import attacks
from benchmarks.studies.hostile.measure import Effect, measure, watched
from contract.repository import read_repository


def main() -> None:
    """Attack a server and print what came of it; exit with 1 where something is not as promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.hostile", description=__doc__)
    parser.add_argument("repository", type=Path, nargs="?", help="default: a family of tiny networks")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes; 1: up to the limits")
    parser.add_argument("--only", default="", help="words, separated by commas: attacks whose names have one of them")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    words = [word for word in given.only.split(",") if word]
    with tempfile.TemporaryDirectory() as folder:
        repository = read_repository(given.repository) if given.repository else write_tiny_family(Path(folder) / "repository")
        chosen = (one for one in attacks(repository, given.scale) if not words or any(word in one.name for word in words))
        print(f"{describe_machine()}\n{_HEAD}")
        with watched(repository) as target:
            effects = measure(target, chosen, lambda effect: print(line_of(effect), flush=True))
    if given.json:
        found = {"machine": describe_machine(), "scale": given.scale, "effects": [asdict(effect) for effect in effects]}
        given.json.write_text(json.dumps(found, indent=1))
    raise SystemExit(any(effect.faults for effect in effects))


_HEAD = f"{'':44} {'ended':24} {'s':>6} {'MB':>7} {'allowed':>8} {'loop ms':>8} {'honest: asked':>14} {'refused':>8} {'slowest ms':>11}"


def line_of(effect: Effect) -> str:
    """Return the row of the table for `effect`, with a line more for each thing that is not as promised."""
    row = (
        f"{effect.name:44.44} {effect.outcome:24.24} {effect.seconds:6.2f} {effect.peak_bytes / 1e6:7.1f} {effect.budget_bytes / 1e6:8.1f} "
        f"{1000 * effect.stand_s:8.1f} {effect.asked:14} {effect.refused:8} {1000 * effect.slowest_s:11.1f}"
    )
    return "\n".join((row, *(f"    NOT AS PROMISED: {fault}" for fault in effect.faults)))


if __name__ == "__main__":
    main()
