"""Shows what benchmarks have found: tables, plots, and one page of it all."""

__all__: list[str] = []
