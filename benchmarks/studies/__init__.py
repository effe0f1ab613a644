"""Measurements that are made once, by `python -m`. Not in the wheel."""

__all__: list[str] = []
