"""Shows what benchmarks have found: tables, plots, and one page of it all."""
