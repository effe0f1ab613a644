"""Measurements that a person decides with: each a function that returns data."""
