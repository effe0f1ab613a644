"""The command: `python -m benchmarks.studies.export`."""

from benchmarks.studies.export.measure import main

main()
