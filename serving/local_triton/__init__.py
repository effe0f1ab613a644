"""A real Triton server on this machine, without Docker: fetched once, started and supervised (docs/triton.md)."""
