"""Runs the exporter over timm, one small network per model family: `python -m benchmarks.studies.coverage --out coverage.jsonl`."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from benchmarks.studies.coverage.networks import list_families
from benchmarks.studies.coverage.report import make_report, why_wrong
from benchmarks.studies.coverage.runner import FamilyLimits, measure_apart, measure_families, read_lines


def main() -> None:
    """Measure the families that `--out` has no record of yet, and write `--report` from all records."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--families", help="names separated by commas; all by default, none with an empty string")
    parser.add_argument(
        "--out", type=Path, default=Path("coverage.jsonl"), help="records, one per line; families in it are skipped"
    )
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    parser.add_argument("--cache", type=Path, help="folder that keeps the traced networks")
    parser.add_argument("--timeout", type=float, default=FamilyLimits.seconds, help="seconds per family")
    parser.add_argument("--memory", type=float, default=FamilyLimits.memory_gb, help="GB per family")
    parser.add_argument("--again", action="store_true", help="measure again what is recorded as not right")
    arguments = parser.parse_args()
    _measure(arguments)
    if arguments.report:
        arguments.report.write_text(make_report(read_lines(arguments.out), _versions()))


def _measure(arguments: argparse.Namespace) -> None:
    families = list_families() if arguments.families is None else [name for name in arguments.families.split(",") if name]
    limits = FamilyLimits(arguments.timeout, arguments.memory)
    lines = measure_families(
        families,
        arguments.out,
        lambda family: measure_apart(family, arguments.cache, limits),
        lambda line: arguments.again and bool(why_wrong(line)),
    )
    for line in lines:
        print(
            f"{line['family']:24} {line.get('variant', ''):32} {line.get('blocks', 0):3} blocks   {why_wrong(line) or 'right'}",
            flush=True,
        )


def _versions() -> str:
    libraries = {name: version(name) for name in ("timm", "torch", "onnxscript", "onnx-ir")} | {
        "onnxruntime": onnxruntime.__version__
    }
    return ", ".join(f"{name} {number}" for name, number in libraries.items())


if __name__ == "__main__":
    main()
