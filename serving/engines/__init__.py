"""Engines run execution plans: the embedded one in this process, the in-memory one on plain functions."""
