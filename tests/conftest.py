"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# Machines are shared: an example that takes long is no failure. What must be fast is measured in benchmarks.
settings.register_profile("espalier", deadline=None)
settings.load_profile("espalier")
