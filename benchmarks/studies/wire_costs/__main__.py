"""The command: `python -m benchmarks.studies.wire_costs`."""

from benchmarks.studies.wire_costs.measure import main

main()
