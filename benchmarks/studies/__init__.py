"""Measurements that are made once, by `python -m`. Not in the wheel."""
