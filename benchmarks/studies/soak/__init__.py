"""A server under good, bad and hostile requests at once, for as many as you like: `python -m benchmarks.studies.soak --requests 100000`."""

__all__: list[str] = []
