"""Runs the exporter over timm, one network per model family, and reports where it finds the right fork."""

__all__: list[str] = []
