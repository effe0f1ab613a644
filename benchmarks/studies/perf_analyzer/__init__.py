"""NVIDIA's perf_analyzer against our server: whether it runs through, and what it measures."""

__all__: list[str] = []
