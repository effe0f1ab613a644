"""The command: `python -m benchmarks.overhead`."""

from benchmarks.overhead.measure import main

main()
