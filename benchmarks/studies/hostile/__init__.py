"""Requests that cost a server more than their sender: what each takes, against what is promised (docs/reference/limits.md).

`python -m benchmarks.studies.hostile`; at a small size in tests/benchmarks/studies/test_hostile.py.
"""

__all__: list[str] = []
