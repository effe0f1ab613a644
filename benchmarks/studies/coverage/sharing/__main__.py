"""Runs the exporter over families of dense networks and of text encoders: `python -m benchmarks.studies.coverage.sharing`.

What has been measured is kept in `--out`, so that a run goes on where an interrupted one stopped. With `--report` the tables are written
into that document, between the lines that mark their place. Needs the packages of the extra `coverage`.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from benchmarks.studies.coverage.runner import FamilyLimits, measure_apart, measure_families, read_lines
from benchmarks.studies.coverage.sharing.families import KINDS, measure_here
from benchmarks.studies.coverage.sharing.report import make_sections, why_less, with_sections

_LIBRARIES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "transformers", "onnxscript", "onnx-ir")


def main() -> None:
    """Measure the families that `--out` has no record of yet, and write their tables into `--report`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--families", help="names separated by commas; all by default, none with an empty string")
    parser.add_argument(
        "--out", type=Path, default=Path("sharing.jsonl"), help="records, one per line; families in it are skipped"
    )
    parser.add_argument("--report", type=Path, help="Markdown document to write the tables into")
    parser.add_argument("--timeout", type=float, default=FamilyLimits.seconds, help="seconds per family")
    parser.add_argument("--memory", type=float, default=FamilyLimits.memory_gb, help="GB per family")
    parser.add_argument("--again", action="store_true", help="measure again what is recorded as less than possible")
    arguments = parser.parse_args()
    every = [family for families in KINDS.values() for family in families()]
    families = every if arguments.families is None else [name for name in arguments.families.split(",") if name]
    limits = FamilyLimits(arguments.timeout, arguments.memory)
    for line in measure_families(
        families,
        arguments.out,
        lambda family: measure_apart(family, None, limits, measure_here),
        lambda line: arguments.again and bool(why_less(line)),
    ):
        print(f"{line['family']:20} {line.get('what', ''):36} {why_less(line) or 'all that is possible'}", flush=True)
    if arguments.report:
        sections = make_sections(
            read_lines(arguments.out), {kind: [*families()] for kind, families in KINDS.items()}, _versions()
        )
        arguments.report.write_text(with_sections(arguments.report.read_text(), sections))


def _versions() -> str:
    return ", ".join([*(f"{name} {version(name)}" for name in _LIBRARIES), f"onnxruntime {onnxruntime.__version__}"])


if __name__ == "__main__":
    main()
