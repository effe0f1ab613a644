"""The command: `python -m benchmarks.studies.jpeg`."""

from benchmarks.studies.jpeg.measure import main

main()
