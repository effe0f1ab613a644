"""The command: `python -m benchmarks.studies.many_tasks`."""

from benchmarks.studies.many_tasks.measure import main

main()
