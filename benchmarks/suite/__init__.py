"""The benchmarks of `espalier bench`: each a function that returns data. How to add one: docs/benchmarks.md."""
