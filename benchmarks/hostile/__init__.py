"""Requests that cost a server more than their sender: what each takes, against what is promised (docs/limits.md).

`python -m benchmarks.hostile`; at a small size in tests/benchmarks/test_hostile.py.
"""
